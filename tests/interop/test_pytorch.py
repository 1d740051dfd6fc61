"""Files that PyTorch itself wrote (``tests/data/pytorch/make.py``), and those of a package on PyPI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import Policy, SourceError
from treeload._naming.name import Name

DATA = Path(__file__).parents[1] / "data" / "pytorch"
FILES = sorted(
    str(path.relative_to(DATA))
    for path in (
        *DATA.glob("*.pt"),
        *DATA.glob("*.pth.tar"),
        *DATA.glob("lpips/*.pth"),
        *DATA.glob("shards/*.bin"),
    )
)


def expected() -> dict[str, np.ndarray[Any, Any]]:
    with np.load(DATA / "expected.npz") as file:
        return {key: file[key] for key in file.files}


EXPECTED = expected()


def read(path: Path) -> dict[Name, np.ndarray[Any, Any]]:
    source = treeload.open(path)
    return {name: np.asarray(array) for name, array in source.read(dict(source.specs()))}


def assert_same(found: np.ndarray[Any, Any], value: np.ndarray[Any, Any], dtype: str | None = None) -> None:
    if dtype is not None:
        assert found.dtype.name == dtype
    if found.dtype != value.dtype:  # what NumPy has no dtype for lies there as its bits
        found = found.view(value.dtype)
    np.testing.assert_array_equal(found, value, strict=True)


def test_all_of_the_files_are_tried() -> None:
    assert len(FILES) == 20
    assert {name for name in FILES if not [key for key in EXPECTED if key.startswith(f"{name}/")]} == set()


@pytest.mark.parametrize("name", FILES)
def test_every_value_is_what_pytorch_says(name: str) -> None:
    found = read(DATA / name)
    values = {
        key.removeprefix(f"{name}/"): value for key, value in EXPECTED.items() if key.startswith(f"{name}/")
    }
    for printed, value in values.items():
        dtype = printed if "dtypes" in name else None
        assert_same(found[Name.parse(printed)], value, dtype)
    others = {str(leaf) for leaf in found} - set(values)
    assert all("param_groups" in leaf for leaf in others)


def test_shards_are_one_checkpoint() -> None:
    for path in (DATA / "shards", DATA / "shards" / "pytorch_model.bin.index.json"):
        found = read(path)
        assert len(found) == 9 and "2 shards" in treeload.open(path).label
        for name, array in found.items():
            (value,) = [
                v for k, v in EXPECTED.items() if k.startswith("shards/") and k.endswith(f".bin/{name}")
            ]
            assert_same(array, value)


@pytest.mark.parametrize("name", ["tied.pt", "tied.old.pt"])
def test_a_shared_parameter_is_a_tie(name: str) -> None:
    source = treeload.open(DATA / name)
    assert source.ties() == {("head", "weight"): ("embed", "weight")}
    shared = jnp.zeros((5, 3))
    loaded = treeload.load(
        {"embed": {"weight": shared}, "head": {"weight": shared, "bias": jnp.ones(5)}}, DATA / name
    )
    assert loaded["embed"]["weight"] is loaded["head"]["weight"]
    np.testing.assert_array_equal(loaded["embed"]["weight"], EXPECTED[f"{name}/embed/weight"])


@pytest.mark.parametrize("name", ["training.pt", "training.old.pt", "protocol4.pt"])
def test_what_lies_beside_the_weights(name: str) -> None:
    source = treeload.open(DATA / name)
    assert source.statics() == {("arch",), ("args", "name"), ("dtype",), ("device",), ("tags",), ("large",)}
    assert source.absent()[Name(("nothing",))] is None
    assert {("epoch",), ("best",), ("done",), ("args", "lr"), ("history", "0")} <= source.numbers()
    assert source.specs()[Name(("loss",))].dtype == np.float32 and ("loss",) not in source.numbers()


def test_the_wrapper_is_said_by_the_report() -> None:
    model = {
        "dense": {"weight": jnp.zeros((4, 3)), "bias": jnp.zeros(4)},
        "norm": {
            "weight": jnp.zeros(4),
            "bias": jnp.zeros(4),
            "running_mean": jnp.zeros(4),
            "running_var": jnp.zeros(4),
            "num_batches_tracked": np.int64(0),
        },
        "head": {"weight": jnp.zeros((2, 4)), "bias": jnp.zeros(2)},
    }
    for name, subtree in (("training.pt", "model"), ("wrapped.pth.tar", "state_dict/module/_orig_mod")):
        plan = treeload.plan(model, DATA / name)
        assert not plan.ok
        assert f'From(src, subtree="{subtree}")' in str(plan)
        found = treeload.load(model, treeload.From(DATA / name, subtree=subtree))
        key = f"{name}/{subtree}/dense/weight"
        np.testing.assert_array_equal(found["dense"]["weight"], EXPECTED[key])


REFUSED = {
    "quantised.pt": "'torch._utils._rebuild_qtensor', for a quantised tensor",
    "torchscript.pt": "is a TorchScript archive",
    "module.pt": "'torch.nn.modules.linear.Linear', a module itself",
    "sparse.pt": "_rebuild_sparse_tensor', for a tensor that is not dense",
    "conjugated.pt": "conjugated or negated only when it is used",
    "complex32.pt": "'torch.complex32', a dtype that no array here has",
    "numpy_array.pt": "_reconstruct', which treeload does not know, and nothing that a pickle names",
}


def test_each_file_that_is_refused_is_tried() -> None:
    assert {path.name for path in (DATA / "refused").iterdir()} == set(REFUSED)


@pytest.mark.parametrize(("name", "why"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_by_name(name: str, why: str) -> None:
    with pytest.raises(SourceError, match=why) as caught:
        treeload.open(DATA / "refused" / name)
    assert str(caught.value).startswith(repr(str(DATA / "refused" / name)))


def test_without_checksums_nothing_is_said_to_be_verified() -> None:
    assert treeload.verify(DATA / "no_sums.pt").unverified == (("w",),)
    assert treeload.verify(DATA / "dtypes.pt").ok
    assert not treeload.verify(DATA / "dtypes.old.pt").checked


def test_weights_of_a_package_load_into_a_flax_model() -> None:
    model = {f"lin{number}": {"model": {"1": {"weight": jnp.zeros((1, size, 1, 1))}}}
             for number, size in enumerate((64, 192, 384, 256, 256))}  # fmt: skip
    loaded = treeload.load(model, DATA / "lpips" / "v0.1-alex.pth", policy=Policy())
    value = EXPECTED["lpips/v0.1-alex.pth/lin2/model/1/weight"]
    np.testing.assert_array_equal(loaded["lin2"]["model"]["1"]["weight"], value)


class Net(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.dense = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)


def test_suggested_rules_load_a_training_checkpoint_into_a_flax_module() -> None:
    """What ``docs/how-to/from-load-state-dict.md`` shows."""
    assert 'From(src, subtree="model")' in str(treeload.plan(Net(), DATA / "training.pt"))
    src = treeload.From(DATA / "training.pt", subtree="model")
    plan = treeload.plan(Net(), src)
    assert "Rename('{*p}/weight', '{*p}/kernel', Transpose())" in str(plan.suggest())
    policy = Policy(unexpected={"**/num_batches_tracked": "ignore"})
    model = treeload.load(Net(), src, rules=plan.suggest(), policy=policy)
    weight, variance = (
        EXPECTED[f"training.pt/model/{name}"] for name in ("dense/weight", "norm/running_var")
    )
    np.testing.assert_array_equal(model.dense.kernel[...], weight.T)
    np.testing.assert_array_equal(model.norm.var[...], variance)
