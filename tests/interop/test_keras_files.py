"""Files that Keras itself wrote, kept in ``tests/data/keras`` with the script that made them."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import treeload
from treeload import From, Policy, Rename

DATA = Path(__file__).parent.parent / "data" / "keras"
LAYERS = {  # what Keras 3 calls a layer's variables -> what the model calls them
    "layers/dense/vars/0": "sequential/first/kernel",
    "layers/dense/vars/1": "sequential/first/bias",
    "layers/batch_normalization/vars/0": "sequential/norm/gamma",
    "layers/batch_normalization/vars/3": "sequential/norm/moving_variance",
    "layers/sequential/layers/dense/vars/0": "inner/inside/kernel",
    "layers/dense_1/vars/0": "sequential/half/kernel",
    "layers/dense_1/vars/1": "sequential/half/bias",
}


def values() -> dict[str, np.ndarray]:
    with np.load(DATA / "values.npz") as file:
        return dict(file)


def read(path: Path) -> dict[str, np.ndarray]:
    source = treeload.open(path)
    return {str(name): np.asarray(array) for name, array in source.read(source.specs())}


@pytest.mark.parametrize("name", ["model.weights.h5", "model.keras"])
def test_what_keras_3_wrote_is_read(name: str) -> None:
    found, wanted = read(DATA / name), values()
    assert len(found) == 28
    for own, path in LAYERS.items():
        np.testing.assert_array_equal(found[own].astype(np.float32), wanted[path])
    assert found["layers/dense_1/vars/0"].dtype == jnp.bfloat16
    assert found["optimizer/vars/0"] == 1


def test_a_whole_model_of_the_old_kind_is_read_by_its_variables_names() -> None:
    found, wanted = read(DATA / "old.h5"), values()
    weights = {name: array for name, array in found.items() if name.startswith("model_weights/")}
    assert len(weights) == 10 and len(found) == 28
    for name, array in weights.items():
        path = name.split("/", 2)[2]
        np.testing.assert_array_equal(array.astype(np.float32), wanted[path])


def test_a_keras_model_loads_into_a_tree() -> None:
    model = {"first": {"kernel": jnp.zeros((5, 4)), "bias": jnp.ones(4)}}
    source = From(
        DATA / "old.h5",
        subtree="model_weights",
        rules=Rename("{layer}/sequential/{layer}/{w}", "{layer}/{w}"),
    )
    policy = Policy(unexpected={"half/**": "ignore", "norm/**": "ignore", "inner/**": "ignore"})
    loaded = treeload.load(model, source, policy=policy)
    np.testing.assert_array_equal(loaded["first"]["kernel"], values()["sequential/first/kernel"])


def test_the_kinds_of_file_agree() -> None:
    one, other = read(DATA / "model.keras"), read(DATA / "model.weights.h5")
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
