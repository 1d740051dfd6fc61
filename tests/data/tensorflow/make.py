"""Writes the checkpoints beside it with TensorFlow, and what is in them as ``values.npz``.

    python3 -m venv tf && tf/bin/pip install tensorflow-cpu && tf/bin/python make.py

Written by the TensorFlow that ``written_by.txt`` names. The tests read the files; nothing runs this.
"""

import os
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import ml_dtypes
import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent

DTYPES = (
    "float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64", "bool", "complex64", "complex128", "float8_e5m2", "float8_e4m3fn",
)  # fmt: skip


def of_savers() -> dict[str, np.ndarray[Any, Any]]:
    """``tf.compat.v1.train.Saver``, sharded: names of variables, every dtype, as RETURNN's are."""
    rng = np.random.default_rng(0)
    values = {
        f"dtypes/{name}": rng.integers(0, 2 if name == "bool" else 100, (2, 3)).astype(
            np.dtype(getattr(ml_dtypes, name, name))
        )
        for name in DTYPES
    }
    values["lstm0_fw/rec/W_re"] = rng.normal(size=(4, 16)).astype(np.float32)
    values["lstm0_fw/rec/W_re/Adam"] = np.zeros((4, 16), np.float32)
    values["output/output_prob/W"] = rng.normal(size=(4, 5)).astype(np.float32)
    values["empty"] = np.zeros((0, 3), np.float32)
    values["global_step"] = np.asarray(40, np.int64)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
        variables = []
        for number, (name, value) in enumerate(values.items()):
            with tf.device(f"/cpu:{number % 2}"):
                variables.append(
                    v1.Variable(
                        tf.constant(value), name=name, use_resource="float8" in name or number % 3 == 0
                    )
                )
        text = v1.Variable("a text", name="a_text")
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver([*variables, text], sharded=True, save_relative_paths=True)
        saver.save(session, str(HERE / "saver" / "network.040"), write_meta_graph=False)
    return values


def of_partitions() -> None:
    """A partitioned variable, which is refused by name."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        with v1.variable_scope("table", partitioner=v1.fixed_size_partitioner(2)):
            v1.get_variable("embedding", initializer=tf.constant(np.ones((4, 2), np.float32)))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(
            session, str(HERE / "partitioned" / "x"), write_meta_graph=False, write_state=False
        )


def of_objects() -> dict[str, np.ndarray[Any, Any]]:
    """``tf.train.Checkpoint`` of a module and its optimizer's slots, with names that need escapes."""
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 2)).astype(np.float32)
    module = tf.Module()
    module.dense = tf.Module()
    module.dense.kernel = tf.Variable(kernel)
    module.layers = [tf.Variable(np.arange(2, dtype=np.float16))]
    module.by_name = {"a/b.c": tf.Variable(np.int64(5))}
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=module), str(HERE / "objects"), max_to_keep=2
    )
    manager.save()
    module.dense.kernel.assign_add(tf.ones((3, 2)))
    manager.save()
    return {
        "model/dense/kernel": kernel + 1,
        "model/layers/0": np.arange(2, dtype=np.float16),
        r"model/by_name/a\/b.c": np.asarray(5),
        "save_counter": np.asarray(2),
    }


def main() -> None:
    """Writes all of it."""
    for folder in ("saver", "partitioned"):
        (HERE / folder).mkdir(exist_ok=True)
    saved = {f"saver:{name}": value for name, value in of_savers().items()}
    saved |= {f"objects:{name}": value for name, value in of_objects().items()}
    of_partitions()
    as_bytes = {
        f"{name}:{value.dtype}:{value.shape}": np.frombuffer(value.tobytes(), np.uint8)
        for name, value in saved.items()
    }
    np.savez_compressed(HERE / "values.npz", **as_bytes)
    (HERE / "written_by.txt").write_text(f"tensorflow {tf.__version__}\n")


if __name__ == "__main__":
    main()
