"""What the mutator begins with: a small checkpoint of each format and layout, and a lock."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import bundles
import equinox as eqx
import gguf
import h5py
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import quants
import torch_files
from flax import serialization
from safetensors.numpy import save_file

import treeload

EARLY = Path(__file__).parent.parent / "data" / "early"


def tree() -> dict[str, Any]:
    return {
        "layers": {str(i): {"kernel": np.full((3, 2), i, np.float32)} for i in range(3)},
        "n": 3, "flag": True, "half": np.ones(4, np.float16),
    }  # fmt: skip


def make(folder: Path) -> list[Path]:
    """A path for each seed."""
    import orbax.checkpoint as ocp

    flat: dict[str, Any] = {
        "a.b": np.ones((2, 3), np.float32),
        "a.c": np.ones(2, np.int8),
        "d": np.zeros(0, np.float32),
    }
    save_file(flat, folder / "one.safetensors", metadata={"format": "pt", "step": "3"})
    shards = folder / "shards"
    shards.mkdir()
    save_file({"a": flat["a.b"]}, shards / "model-1.safetensors")
    save_file({"b": flat["a.c"]}, shards / "model-2.safetensors")
    where = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index = {"metadata": {"total_size": 26}, "weight_map": where}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "flax.msgpack").write_bytes(serialization.to_bytes({**tree(), "z": 1 + 2j, "none": None}))
    eqx.tree_serialise_leaves(folder / "equinox.eqx", [jnp.ones((2, 2)), jnp.zeros(3, jnp.bfloat16), 3.0])
    with (folder / "line.eqx").open("wb") as file:
        file.write(b'{"width": 3}\n')
        eqx.tree_serialise_leaves(file, [jnp.ones(2)])
    flax_shards = folder / "flax_shards"
    flax_shards.mkdir()
    first, second = (f"flax_model-0000{number}-of-00002.msgpack" for number in (1, 2))
    (flax_shards / first).write_bytes(serialization.to_bytes({"a": {"b": flat["a.b"]}}))
    (flax_shards / second).write_bytes(serialization.to_bytes({"a": {"c": flat["a.c"]}, "n": 3}))
    index = {"weight_map": {"a/b": first, "a/c": second, "n": second}}
    (flax_shards / "flax_model.msgpack.index.json").write_text(json.dumps(index))
    named = {"name": "State", "fields": {"0": "mu"}, "values": {"0": {"w": flat["a.b"]}}}
    (folder / "of_no_name").write_bytes(serialization.msgpack_serialize(named))
    for early in ("orbax_0_1_6/stored", "orbax_0_4_3/mixed"):
        shutil.copytree(EARLY / early, folder / early.replace("/", "_"))
    flat_as_tf = {"layers/w": np.ones((3, 2), np.float32), "flag": np.array([True]), "step": np.int64(3)}
    bundles.write(folder / "bundle" / "model.ckpt-1", flat_as_tf, shards=2)
    (folder / "bundle" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1"\n')
    with h5py.File(folder / "keras.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((3, 2), np.float32)
        file["layers/dense/flag"] = np.array([True, False])
        file.create_dataset("packed", data=np.arange(400.0), chunks=(100,), compression="gzip", shuffle=True)
        file["text"], file["half"] = "a text", np.ones(3, ml_dtypes.bfloat16)
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.write(folder / "keras.h5", "model.weights.h5")
    quants.write(
        folder / "llama.gguf",
        {"a.w": np.ones((2, 64), np.float32), "b.w": np.ones((2, 64), np.float32), "n": np.arange(3)},
        quantised={"b.w": gguf.GGMLQuantizationType.Q8_0},
        says=lambda writer: writer.add_token_list(["a", "b", "c"]),
    )
    arrays: dict[str, Any] = {"a/b": np.ones((2, 3), np.float32), "t": np.array("x")}
    arrays["c"] = np.asfortranarray(np.ones((2, 2)))
    np.savez(folder / "stored.npz", **arrays)
    np.savez_compressed(folder / "compressed.npz", **arrays)
    held = torch_files.storage("0", "float32", 6)
    pair = {"a.b": torch_files.tensor(held, (2, 3)), "t": torch_files.tensor(held, (3, 2), strides=(1, 3))}
    shown = {"m": pair, "step": 3, "arch": "x", "none": None, "list": [1.5, True]}
    raw = np.arange(6, dtype=np.float32).tobytes()
    (folder / "torch.pt").write_bytes(torch_files.zipped(shown, {"0": raw}))
    (folder / "torch.old").write_bytes(torch_files.legacy(shown, [("0", 6, raw)]))
    shared = jnp.ones(2)
    ours = {
        **tree(),
        "tied": shared,
        "again": shared,
        "none": None,
        "key": jax.random.key(0),
        "e": jnp.zeros((0, 2)),
    }
    plan = treeload.plan(tree(), tree())
    treeload.save(folder / "ours", ours, metadata={"loss": 0.5, "deep": {"a": [1]}}, provenance=plan)
    for name, options in (
        ("plain", {"use_ocdbt": False}),
        ("zarr3", {"use_ocdbt": False, "use_zarr3": True}),
    ):
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
            checkpointer.save(folder / name, {"w": jnp.ones((4, 4)), "v": {"x": jnp.ones(3)}})
    treeload.export(folder / "from.safetensors", tree(), like=treeload.plan(tree(), folder / "ours",
                    policy=treeload.Policy(unexpected="ignore")))  # fmt: skip
    treeload.plan(tree(), folder / "ours", policy=treeload.Policy(unexpected="ignore")).lock(
        folder / "model.lock"
    )
    return sorted(folder.iterdir())


def copied(seed: Path, to: Path) -> Path:
    """A fresh copy of a seed; links and all else that is no file are none of it."""
    where = to / seed.name
    shutil.copytree(seed, where) if seed.is_dir() else shutil.copyfile(seed, where)
    return where
