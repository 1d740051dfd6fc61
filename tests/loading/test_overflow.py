"""A cast that overflows a value is said, all of them at once, and nothing is changed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import treeload
from treeload import Cast, From, LoadError, Pad, Policy, Rename, Stack, Transpose

WIDE = {"count": np.array([1, 2**40]), "w": np.array([1.0, 1e6], np.float32)}
NARROW = {"count": jax.ShapeDtypeStruct((2,), np.int32), "w": jax.ShapeDtypeStruct((2,), np.float16)}


def spread(array: Any) -> jax.Array:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("x",))
    return jax.device_put(array, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x")))


PLACES = {"host": np.asarray, "device": jnp.asarray, "spread": spread}
places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def orbax(path: Path) -> Any:
    treeload.save(path / "run", WIDE)
    return path / "run"


def safetensors_file(path: Path) -> Any:
    safetensors.numpy.save_file(WIDE, path / "w.safetensors")
    return path / "w.safetensors"


def msgpack(path: Path) -> Any:
    (path / "w.msgpack").write_bytes(flax.serialization.msgpack_serialize(WIDE))
    return path / "w.msgpack"


def equinox(path: Path) -> Any:
    eqx.tree_serialise_leaves(path / "w.eqx", WIDE)
    return From(path / "w.eqx", by_position=True)


@pytest.mark.parametrize("source", [lambda _: WIDE, orbax, safetensors_file, msgpack, equinox])
def test_all_are_said_at_once_from_every_source(source: Any, tmp_path: Path) -> None:
    plan = treeload.plan(NARROW, source(tmp_path))
    assert plan.ok  # planning reads no value
    with pytest.raises(LoadError) as error:
        plan.load()
    said: dict[str, Any] = {str(finding.name): finding for finding in error.value.findings}
    assert set(said) == {"count", "w"} and {finding.kind for finding in said.values()} == {"dtype"}
    assert said["count"].message == "1 of 2 values overflows int32, the largest 1,099,511,627,776"
    assert said["w"].message == "1 of 2 values overflows float16, the largest 1e+06"
    assert (said["w"].expected.dtype, said["w"].found.dtype) == (np.float16, np.float32)
    assert set(error.value.findings) <= set(error.value.plan.errors)


OVERFLOWS = [
    (np.int64, "int32", 2**31, 2**31 - 1), (np.int64, "int32", -(2**31) - 1, -(2**31)),
    (np.uint8, "int8", 128, 127),
    (np.int32, "int8", -129, -128), (np.uint64, "int64", 2**63, 2**63 - 1), (np.int8, "int4", 8, 7),
    (np.int8, "uint4", -1, 0), (np.int32, "float16", 65520, 65519), (np.uint32, "float16", 2**20, 2**15),
    (np.float32, "float16", 65520.0, 65519.0), (np.float32, "float16", -1e6, -65504.0),
    (np.float64, "float32", 1e39, 3e38), (np.float32, "bfloat16", 3.4e38, 3.39e38),
    (np.float32, "float8_e5m2", 61440.0, 61439.0),
    (np.float32, "float8_e4m3fn", 465.0, 464.0), (np.float16, "float8_e4m3fn", 465.0, 464.0),
    (np.float32, "float4_e2m1fn", 7.0, 6.5), (np.float32, "float4_e2m1fn", -100.0, -6.0),
    (np.float64, "complex64", 1e39, 3e38), (np.complex128, "complex64", 1 + 1e39j, 1 + 3e38j),
]  # fmt: skip


@pytest.mark.parametrize(("source", "to", "beyond", "within"), OVERFLOWS)
def test_what_is_beyond_overflows_and_what_is_within_is_rounded(
    source: Any, to: str, beyond: Any, within: Any
) -> None:
    dst = {"w": np.zeros(3, np.dtype(getattr(ml_dtypes, to, to)))}
    loaded = treeload.load(dst, {"w": np.array([0, within, 1], source)})["w"]
    np.testing.assert_array_equal(loaded, np.array([0, within, 1], source).astype(dst["w"].dtype))
    with pytest.raises(LoadError, match=f"1 of 3 values overflows {to}"):
        treeload.load(dst, {"w": np.array([0, beyond, 1], source)})
    forced = treeload.load(dst, {"w": np.array([0, beyond, 1], source)}, policy=Policy(casting="unsafe"))
    assert forced["w"].dtype == dst["w"].dtype


@places
@pytest.mark.parametrize(
    ("source", "to", "beyond", "within"),
    [
        case
        for case in OVERFLOWS
        if np.dtype(case[0]).itemsize <= 4 and case[1] != "int4" and case[1] != "uint4"
    ],
)
def test_it_is_found_wherever_the_source_lies(
    place: Any, source: Any, to: str, beyond: Any, within: Any
) -> None:
    dst = {"w": np.zeros(8, np.dtype(getattr(ml_dtypes, to, to)))}
    treeload.load(dst, {"w": place(np.array([0, within] * 4, source))})
    with pytest.raises(LoadError, match=f"2 of 8 values overflow {to}"):
        treeload.load(dst, {"w": place(np.array([0, beyond, beyond] + [within] * 5, source))})


@places
def test_nan_and_infinities_stay_what_they_are(place: Any) -> None:
    given = place(np.array([np.nan, np.inf, -np.inf, 1] * 2, np.float32))
    loaded = treeload.load({"w": jnp.zeros(8, jnp.float16)}, {"w": given})["w"]
    np.testing.assert_array_equal(loaded, np.array([np.nan, np.inf, -np.inf, 1] * 2, np.float16))
    among_them = place(np.array([np.nan, np.inf, -np.inf, -1e6] * 2, np.float32))
    with pytest.raises(LoadError, match=r"2 of 8 values overflow float16, the largest -1e\+06"):
        treeload.load({"w": jnp.zeros(8, jnp.float16)}, {"w": among_them})


@pytest.mark.parametrize("at", [0, 2**18 - 1, 2**18, 2**19 - 1])
def test_no_element_of_a_large_array_is_overlooked(at: int) -> None:
    large = np.ones(2**19, np.float32)
    large[at] = 1e9
    with pytest.raises(LoadError, match="1 of 524,288 values"):
        treeload.load({"w": jnp.zeros(2**19, jnp.float16)}, {"w": large})


def test_a_module_is_as_before() -> None:
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0), param_dtype=jnp.float16)
    before = jax.tree.map(np.asarray, treeload.state(model))
    with pytest.raises(LoadError, match="overflows float16"):
        treeload.update(
            model, {"kernel": np.full((2, 2), 2.0, np.float32), "bias": np.array([1e6, 0], np.float32)}
        )
    assert treeload.diff(before, treeload.state(model)).equal


def test_after_ops_and_joins_too() -> None:
    src = {"a": {"0": np.full((2, 1), 1e6, np.float32), "1": np.ones((2, 1), np.float32)}}
    with pytest.raises(LoadError, match="2 of 4 values overflow float16"):
        treeload.load({"w": jnp.zeros((2, 1, 2), jnp.float16)}, src, rules=Stack("a/{i}", "w", Transpose()))


def test_what_is_filled_up_with_the_destinations_own_too() -> None:
    rule = Rename("w", "w", Pad(4, fill="destination"))
    with pytest.raises(LoadError, match="1 of 2 values overflows float16"):
        treeload.load({"w": jnp.zeros(4, jnp.float16)}, {"w": np.array([1e6, 1], np.float32)}, rules=rule)


def test_a_cast_that_was_written_is_made_as_it_was_asked_for() -> None:
    rules = Rename("w", "w", Cast("float16"))
    loaded = treeload.load({"w": jnp.zeros(2, jnp.float16)}, {"w": WIDE["w"]}, rules=rules)
    assert loaded["w"].tolist() == [1, np.inf]


def test_a_policy_may_say_for_some_names_that_it_is_cast_all_the_same() -> None:
    with pytest.raises(LoadError) as error:
        treeload.load(NARROW, WIDE, policy=Policy(casting={"w": "unsafe"}))
    assert [str(finding.name) for finding in error.value.findings] == ["count"]


def test_a_policy_that_keeps_what_cannot_be_cast_keeps_it_and_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dst = {"count": np.array([5, 6], np.int32), "w": jnp.zeros(2, jnp.bfloat16)}
    with caplog.at_level(logging.WARNING, "treeload"):
        loaded = treeload.load(dst, WIDE, policy=Policy(dtype={"count": "keep"}))
    assert loaded["count"].tolist() == [5, 6] and loaded["w"].tolist() == [1, 999424]
    assert "count is kept" in caplog.text and "overflows int32" in caplog.text


def test_what_is_abstract_cannot_be_kept() -> None:
    with pytest.raises(LoadError, match="nothing to keep") as error:
        treeload.load(NARROW, WIDE, policy=Policy(dtype="keep"))
    assert {finding.kind for finding in error.value.findings} == {"abstract"}


@pytest.mark.parametrize("dst", [NARROW, {"count": np.zeros(2, np.int32), "w": np.zeros(2, np.float16)}])
def test_the_ways_to_go_on_do_what_they_say(dst: Any) -> None:
    with pytest.raises(LoadError) as error:
        treeload.load(dst, WIDE)
    for finding in error.value.findings:
        for way in finding.remedy.split("; "):
            policy = eval(way.split(": ", 1)[1], {"Policy": Policy})
            rest = [f for f in treeload_errors(dst, policy) if f.name == finding.name]
            assert rest == []


def treeload_errors(dst: Any, policy: Policy) -> list[treeload.Finding]:
    try:
        treeload.load(dst, WIDE, policy=policy)
    except LoadError as error:
        return list(error.findings)
    return []


def test_a_python_number_is_known_when_it_is_planned() -> None:
    dst = {"n": np.zeros((), ml_dtypes.float4_e2m1fn)}
    assert [finding.kind for finding in treeload.plan(dst, {"n": 100.0}).errors] == ["dtype"]
    assert treeload.plan(dst, {"n": 6.0}).ok


def test_an_initializer_and_an_export_say_it_too(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="overflows float16"):
        treeload.initializer(WIDE, "w")(jax.random.key(0), (2,), jnp.float16)
    plan = treeload.plan({"w": jnp.zeros(2)}, {"w": np.ones(2, np.float16)})
    with pytest.raises(treeload.SaveError, match="overflows the source's float16"):
        treeload.export(tmp_path / "out.safetensors", {"w": jnp.array([1.0, 1e6])}, like=plan)
    assert not (tmp_path / "out.safetensors").exists()
