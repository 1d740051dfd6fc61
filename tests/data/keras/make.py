"""Writes the files beside it with Keras, and what is in them as ``values.npz``.

    python3 -m venv keras && keras/bin/pip install keras tensorflow-cpu && keras/bin/python make.py

Written by the Keras that ``written_by.txt`` names. ``old.h5`` is laid out as those of
Keras 2, which Keras 3 still writes. The tests read the files; nothing runs this.
"""

import os
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np

HERE = Path(__file__).parent


def model() -> Any:
    """A model with a nested one, whose optimizer has slots."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="inside")], name="inner")
    made = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, activation="relu", name="first"),
            keras.layers.BatchNormalization(name="norm"),
            inner,
            keras.layers.Dense(2, dtype="bfloat16", name="half"),
        ]
    )
    made.compile(optimizer="adam", loss="mse")
    made.fit(np.ones((8, 5), np.float32), np.ones((8, 2), np.float32), epochs=1, verbose=0)
    return made


def main() -> None:
    """Writes all of it."""
    made = model()
    made.save(HERE / "model.keras")
    made.save(HERE / "old.h5")
    made.save_weights(HERE / "model.weights.h5")
    values = {variable.path: np.asarray(variable.value, np.float32) for variable in made.variables}
    np.savez_compressed(HERE / "values.npz", **values)
    (HERE / "written_by.txt").write_text(f"keras {keras.__version__}, {keras.backend.backend()}\n")


if __name__ == "__main__":
    main()
