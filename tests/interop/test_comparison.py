"""The page "What each loader says": each cell of its table is run here, and the page says what was seen.

A row is a destination, a source, and what is right. Each loader has its usual way to load it
(``peers.LOADERS``); a row names another way where a loader needs one, or says why the loader has none.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import equinox as eqx
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import peers
import pytest
from flax import nnx, serialization
from flax.training import checkpoints
from jax.example_libraries import optimizers
from orbax.checkpoint import v1 as ocp
from peers import ERROR, SAID, SILENT, Load, Seen, never, observe, same_as, table

import treeload
from treeload import From, Policy

PAGE = Path(__file__).parent.parent.parent / "docs" / "comparison.md"
NNX, STATE_DICT, BYTES, EQUINOX = (
    "`nnx.update`",
    "`from_state_dict`",
    "`from_bytes`",
    "`tree_deserialise_leaves`",
)
FLAX = f"{STATE_DICT}, {BYTES}"  # one column, and two words where the two differ
NO_CELL = "–"


@dataclasses.dataclass(frozen=True)
class Row:
    """What is wrong, an input that has it, and whether a result is right.

    ``otherwise`` has the way to load of a loader whose usual one it is not, or the line of the page that says
    why it has none. ``says`` is what treeload's error, warning or report says, where it has one.
    """

    text: str
    make: Callable[[], tuple[Any, Any]]
    is_right: Callable[[Any], bool]
    otherwise: Mapping[str, Load | str] = dataclasses.field(default_factory=dict)
    says: str = ""


# Why a loader has no cell.

NO_DIRECTORY = "`nnx.update` and `tree_deserialise_leaves` choose none of a directory's checkpoints."
NO_EQX = "None but treeload and `tree_deserialise_leaves` reads one."
NO_ORBAX = "`tree_deserialise_leaves` reads only what Equinox wrote."
NO_FILES = "Orbax and `tree_deserialise_leaves` load from files alone."
NO_MODULE = "`nnx.update` takes the objects of NNX alone."
NO_PLAN = "Nobody else makes one."


def but(why: str, *loaders: str) -> dict[str, Load | str]:
    return dict.fromkeys(loaders, why)


def ones(number: float = 1.0) -> jax.Array:
    return jnp.full(2, number, jnp.float32)


def pair(destination: Any, source: Any) -> Callable[[], tuple[Any, Any]]:
    return lambda: (destination, source)


# One disagreement, as the README has them.


def linear(*, bias: bool) -> Any:
    return eqx.nn.Linear(2, 3, use_bias=bias, key=jax.random.key(0))


def equinox_linear(destination: Any, source: Any, folder: Path) -> Any:
    """In an Equinox layer the bias lies behind the weight, as the last of its file."""
    return peers.with_equinox(linear(bias=False), linear(bias=True), folder)


def disagreement(row: peers.Disagreement) -> Row:
    has_bias = "bias" in row.destination["dense"]
    return Row(
        row.text,
        pair(row.destination, row.source),
        row.is_right,
        {} if has_bias else {EQUINOX: equinox_linear},
        r"problems? in loading",
    )


# Names.


def under_a_wrong_prefix() -> tuple[Any, Any]:
    weights = {"w": ones(2), "b": ones()}
    return {"encoder": jax.tree.map(jnp.zeros_like, weights)}, {"model": {"encoder": weights}}


def forgiving(destination: Any, source: Any, folder: Path) -> Any:
    policy = Policy(missing="keep", unexpected="ignore")
    return treeload.load(destination, source, policy=policy)


def flattened() -> tuple[Any, Any]:
    weights = {"encoder": {"w": ones(2), "b": ones()}}
    return jax.tree.map(jnp.zeros_like, weights), flax.traverse_util.flatten_dict(weights)


def two_batch_norms(first: str, second: str) -> Any:
    """A model that declares its layers ``one`` and ``two`` in this order."""

    def init(self: Any) -> None:
        self.one, self.two = (eqx.nn.BatchNorm(3, "batch", mode="batch") for _ in range(2))

    fields = {"__annotations__": {first: Any, second: Any}, "__init__": init, "__qualname__": "Model"}
    return eqx.nn.make_with_state(type("Model", (eqx.Module,), {"__module__": __name__, **fields}))()


def exchanged_batch_norms() -> tuple[Any, Any]:
    _, destination = two_batch_norms("two", "one")
    model, source = two_batch_norms("one", "two")
    for layer, mean in ((model.one, 1.0), (model.two, 2.0)):
        source = source.set(layer.batch_state_index, (jnp.full(3, mean, jnp.float32), jnp.ones(3)))
    return destination, source


def has_its_own_statistics(state: Any) -> bool:
    model, _ = two_batch_norms("two", "one")
    means = [state.get(layer.batch_state_index)[0].tolist() for layer in (model.one, model.two)]
    return means == [[1.0] * 3, [2.0] * 3]


def jax_optimizer() -> tuple[Any, Any]:
    """Optimizer states of a named tuple that JAX flattens otherwise than by its fields."""
    init, update, _ = optimizers.adam(0.1)
    fresh = init({"w": jnp.zeros(2)})
    return fresh, update(0, {"w": ones()}, fresh)


def treeload_from_orbax(destination: Any, source: Any, folder: Path) -> Any:
    ocp.save(folder / "plain", source)
    return peers.with_treeload(destination, folder / "plain", folder)


def in_a_variable(destination: Any, source: Any, folder: Path) -> Any:
    held = nnx.Variable(destination)
    nnx.update(nnx.Dict(state=held), nnx.state(nnx.Dict(state=nnx.Variable(source))))
    return held.get_raw_value()


class Boxed(nnx.Module):
    def __init__(self, number: float) -> None:
        self.cache = nnx.Variable({"a": ones(number), "b": ones(2 * number)})


def from_what_orbax_restores(load: Load) -> Load:
    """Loads what Orbax restores without a target."""

    def way(destination: Any, source: Any, folder: Path) -> Any:
        ocp.save(folder / "plain", source)
        return load(destination, ocp.load(folder / "plain"), folder)

    return way


def into_a_boxed(destination: Any, source: Any, folder: Path) -> Any:
    module = Boxed(0.0)
    nnx.update(module, source)
    return {"cache": module.cache.get_raw_value()}


# Values.


def is_true_of(name: str, value: Any) -> Callable[[Any], bool]:
    return lambda result: bool(result[name] == value)


def computes_in(dtype: Any) -> Callable[[Any], bool]:
    """Whether a product with bfloat16 has this dtype: a weakly typed leaf takes the other's."""
    return lambda result: bool((result["w"] * jnp.ones(2, jnp.bfloat16)).dtype == dtype)


def activation(x: Any) -> Any:
    return x


@dataclasses.dataclass
class Layer:
    """Of a class that JAX does not know as a tree."""

    w: Any


def is_ref_of_ones(result: Any) -> bool:
    return isinstance(result["r"], jax.Ref) and result["r"][...].tolist() == [1, 1]


def masked(value: float) -> Any:
    return np.ma.masked_array([value, value], [True, False])


def has_its_mask(result: Any) -> bool:
    leaf = result["m"]
    return isinstance(leaf, np.ma.MaskedArray) and leaf.mask.tolist() == [True, False] and leaf[1] == 1


class Scaled(eqx.Module):  # type: ignore[name-defined, misc]
    weight: Any
    rate: float = 0.5


def has_its_rate(result: Any) -> bool:
    return isinstance(result, Scaled) and result.rate == 0.25 and result.weight.tolist() == [1, 1]


def eqx_file(destination: Any, source: Any, folder: Path) -> Any:
    eqx.tree_serialise_leaves(folder / "module.eqx", source)
    return peers.with_treeload(destination, From(folder / "module.eqx", by_position=True), folder)


# Placement.


class Sharded(nnx.Module):
    def __init__(self) -> None:
        init = nnx.with_partitioning(nnx.initializers.zeros, ("x", "y"))
        self.layer = nnx.Linear(8, 4, kernel_init=init, rngs=nnx.Rngs(0))


def on_a_mesh() -> tuple[Any, Any]:
    abstract = nnx.to_pure_dict(nnx.state(nnx.eval_shape(Sharded)))
    weights = {"kernel": np.ones((8, 4), np.float32), "bias": np.ones(4, np.float32)}
    return abstract, {"layer": weights}


def under_the_mesh(load: Load) -> Load:
    def way(destination: Any, source: Any, folder: Path) -> Any:
        with jax.set_mesh(jax.make_mesh((2, 4), ("x", "y"))):
            return load(*on_a_mesh(), folder)

    return way


def into_an_abstract_module(destination: Any, source: Any, folder: Path) -> Any:
    module = nnx.eval_shape(Sharded)
    nnx.update(module, source)
    return nnx.to_pure_dict(nnx.state(module))


def is_spread(result: Any) -> bool:
    kernel = result["layer"]["kernel"]
    assert np.asarray(kernel).tolist() == np.ones((8, 4)).tolist()
    return isinstance(kernel, jax.Array) and {each.data.shape for each in kernel.addressable_shards} == {
        (4, 1)
    }


# Trainings.


def write_orbax(path: Path, tree: Any) -> None:
    ocp.save(path, tree)


def write_msgpack(path: Path, tree: Any) -> None:
    path.write_bytes(serialization.to_bytes(tree))


def write_unknown(path: Path, tree: Any) -> None:
    path.write_bytes(b"weights of a kind of their own")


Write = Callable[[Path, Any], None]


def resumed(names: list[str], write: Write = write_msgpack) -> Load:
    def way(destination: Any, source: Any, folder: Path) -> Any:
        return treeload.resume(destination, filled(folder / "run", names, write), otherwise=destination)[0]

    return way


def orbax_training(names: list[str], write: Write, partial: bool = False) -> Load:
    def way(destination: Any, source: Any, folder: Path) -> Any:
        directory = filled(folder / "run", names, write)
        with peers.orbax_options(partial), ocp.training.Checkpointer(directory) as checkpointer:
            return checkpointer.load(None, destination)

    return way


def flax_training(names: list[str], write: Write = write_msgpack) -> Load:
    def way(destination: Any, source: Any, folder: Path) -> Any:
        return checkpoints.restore_checkpoint(filled(folder / "run", names, write), destination)

    return way


def filled(directory: Path, names: list[str], write: Write) -> Path:
    """A directory that holds a checkpoint of these names, the first one's values 1, the next one's 2."""
    directory.mkdir()
    for number, name in enumerate(names, 1):
        write(directory / name, {"w": ones(number)})
    return directory


def training(
    names: list[str], written_by_orbax: Write, written: Write = write_msgpack
) -> Mapping[str, Load | str]:
    return {
        "treeload": resumed(names, written),
        "Orbax": orbax_training(names, written_by_orbax),
        "Orbax, partial": orbax_training(names, written_by_orbax, partial=True),
        STATE_DICT: flax_training(names, written),
        BYTES: flax_training(names, written),
        **but(NO_DIRECTORY, NNX, EQUINOX),
    }


ADAM = optax.adam(0.1)
PARAMS = {"w": jnp.zeros(2), "b": jnp.zeros(1)}


class Small(nnx.Module):
    def __init__(self) -> None:
        self.w, self.b = nnx.Param(PARAMS["w"]), nnx.Param(PARAMS["b"])


def nnx_optimizer() -> nnx.Optimizer[Small]:
    return nnx.Optimizer(Small(), ADAM, wrt=nnx.Param)


def trained_optimizer() -> tuple[Any, Any]:
    """The state of optax to fill, and that of an NNX optimizer after a step."""
    model = Small()
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    optimizer.update(model, nnx.grad(lambda m: jnp.sum(m.w[...]) + 2 * jnp.sum(m.b[...]))(model))
    return {"opt_state": ADAM.init(PARAMS), "step": jnp.uint32(0)}, nnx.state(optimizer)


def has_its_moments(result: Any) -> bool:
    adam = result["opt_state"][0]
    mu = [float(adam.mu[name][0]) for name in ("w", "b")]
    return int(adam.count) == 1 and np.allclose(mu, [0.1, 0.2])


def restored_optimizer(destination: Any, source: Any, folder: Path) -> Any:
    ocp.save(folder / "plain", source)
    return {"opt_state": treeload.finetune.restore_optimizer(ADAM, PARAMS, folder / "plain")}


def into_an_optimizer(destination: Any, source: Any, folder: Path) -> Any:
    optimizer = nnx_optimizer()
    nnx.update(optimizer, source)
    return {"opt_state": optimizer.opt_state}


def copied_plan(destination: Any, source: Any, folder: Path) -> Any:
    plan = treeload.plan(destination, source)
    copies = [copy.deepcopy(plan).load(), pickle.loads(pickle.dumps(plan)).load()]
    return {"copied": copies[0], "pickled": copies[1]}


FRACTIONS = ["checkpoint_0.8", "checkpoint_0.85", "checkpoint_0.9"]
SAVED: dict[str, Load | str] = {"treeload": peers.with_treeload_saved, NNX: peers.with_nnx_state}

ROWS = [
    *(disagreement(row) for row in peers.DISAGREEMENTS),
    Row(
        "all names lie under a wrong prefix, and what is missing or left over is forgiven",
        under_a_wrong_prefix,
        lambda result: same_as({"encoder": {"w": ones(2), "b": ones()}})(result),
        {"treeload": forgiving},
        "a tree in memory feeds no leaf of the destination",
    ),
    Row(
        "names are tuples, as `flatten_dict` makes them",
        flattened,
        lambda result: same_as({"encoder": {"w": ones(2), "b": ones()}})(result),
    ),
    Row(
        "two batch norms of an Equinox model, declared in another order than when their `State` was saved",
        exchanged_batch_norms,
        has_its_own_statistics,
        {"treeload": peers.with_treeload_saved, NNX: NO_MODULE},
    ),
    Row(
        "a named tuple that JAX flattens in its own way (an optimizer of `jax.example_libraries`)",
        jax_optimizer,
        lambda result: same_as(jax_optimizer()[1])(result),
        {"treeload": treeload_from_orbax, NNX: in_a_variable},
    ),
    Row(
        "a Variable that holds a tree, saved by plain Orbax, into plain dicts",
        lambda: ({"cache": {"a": jnp.zeros(2), "b": jnp.zeros(2)}}, nnx.state(Boxed(1.0))),
        same_as({"cache": {"a": ones(1), "b": ones(2)}}),
        {
            "treeload": treeload_from_orbax,
            NNX: from_what_orbax_restores(into_a_boxed),
            STATE_DICT: from_what_orbax_restores(peers.with_from_state_dict),
            BYTES: from_what_orbax_restores(peers.with_from_bytes),
            EQUINOX: NO_ORBAX,
        },
    ),
    Row(
        "an integer too large for the model's (`2**40` into int32)",
        pair({"w": jnp.zeros(2, jnp.int32)}, {"w": np.array([2**40, 1])}),
        never,
        says=r"dtype +w",
    ),
    Row(
        "a number too large for the model's (`1e6` into float16)",
        pair({"w": jnp.zeros(2, jnp.float16)}, {"w": np.array([1e6, 1], np.float32)}),
        never,
        says=r"dtype +w",
    ),
    Row(
        "a text beside the arrays, saved and loaded",
        pair({"w": jnp.zeros(2), "name": "?"}, {"w": ones(), "name": "gpt"}),
        is_true_of("name", "gpt"),
        SAVED,
        r"the save leaves out: name \(a str\)",
    ),
    Row(
        "a text beside the arrays, from one tree in memory into another",
        pair({"w": jnp.zeros(2), "name": "?"}, {"w": ones(), "name": "gpt"}),
        is_true_of("name", "gpt"),
        but(NO_FILES, "Orbax", "Orbax, partial", EQUINOX),
    ),
    Row(
        "a function beside the arrays, saved and loaded",
        pair({"w": jnp.zeros(2), "act": len}, {"w": ones(), "act": activation}),
        is_true_of("act", activation),
        SAVED,
        r"the save leaves out: act \(a function\)",
    ),
    Row(
        "a flag (`True`, `False`) beside the arrays, saved and loaded",
        pair({"w": jnp.zeros(2), "done": True}, {"w": ones(), "done": False}),
        is_true_of("done", False),
        SAVED,
    ),
    Row(
        "a Python number in an Equinox module, from a `.eqx` file",
        lambda: (Scaled(jnp.zeros(2)), Scaled(ones(), 0.25)),
        has_its_rate,
        {
            "treeload": eqx_file,
            **but(NO_EQX, "Orbax", "Orbax, partial", NNX, STATE_DICT, BYTES),
        },
        "rate: the destination has a static here, which never loads",
    ),
    Row(
        "a Python number in an Equinox module, saved by plain Orbax",
        lambda: (Scaled(jnp.zeros(2)), Scaled(ones(), 0.25)),
        has_its_rate,
        {
            "treeload": treeload_from_orbax,
            NNX: NO_MODULE,
            STATE_DICT: from_what_orbax_restores(peers.with_from_state_dict),
            BYTES: from_what_orbax_restores(peers.with_from_bytes),
            EQUINOX: NO_ORBAX,
        },
        "rate: the destination has a static here, which never loads",
    ),
    Row(
        "a Python number in an Equinox module, saved and loaded",
        lambda: (Scaled(jnp.zeros(2)), Scaled(ones(), 0.25)),
        has_its_rate,
        {"treeload": peers.with_treeload_saved, NNX: NO_MODULE},
    ),
    Row(
        "an array in an object that JAX does not know as a tree",
        lambda: ({"w": jnp.zeros(2), "layer": Layer(jnp.zeros(2))}, {"w": ones(), "layer": Layer(ones())}),
        lambda result: result["layer"].w.tolist() == [1, 1],
        SAVED,
        r"layer: of type .*Layer, which JAX does not know as a tree, and holds arrays",
    ),
    Row(
        "a mapping that is no dict (`MappingProxyType`)",
        pair({"encoder": {"w": jnp.zeros(2)}}, {"encoder": MappingProxyType({"w": ones()})}),
        same_as({"encoder": {"w": ones()}}),
    ),
    Row(
        "an array behind `jax.new_ref`",
        lambda: ({"r": jax.new_ref(jnp.zeros(2))}, {"r": jax.new_ref(ones())}),
        is_ref_of_ones,
        SAVED,
    ),
    Row(
        "a masked array",
        lambda: ({"m": masked(0.0)}, {"m": masked(1.0)}),
        has_its_mask,
        SAVED,
        "m: a masked array, whose mask would be lost",
    ),
    Row(
        "an array of dates",
        pair({"d": np.array(["2020"], "datetime64[D]")}, {"d": np.array(["2021"], "datetime64[D]")}),
        is_true_of("d", np.array(["2021"], "datetime64[D]")),
        SAVED,
        "d: an array of dates .*, which JAX cannot hold",
    ),
    Row(
        "a weakly typed source, for a leaf that is not: results are to stay float32",
        pair({"w": jnp.zeros(2, jnp.float32)}, {"w": jnp.full(2, 1.5)}),
        computes_in(jnp.float32),
    ),
    Row(
        "a weakly typed leaf: results with bfloat16 are to stay bfloat16",
        pair({"w": jnp.full(2, 0.0)}, {"w": np.ones(2, np.float32)}),
        computes_in(jnp.bfloat16),
    ),
    Row(
        "a model of `nnx.eval_shape` under `jax.set_mesh`: arrays are to be spread over that mesh",
        pair(None, None),
        is_spread,
        {
            loader: under_the_mesh(into_an_abstract_module if loader == NNX else load)
            for loader, load in peers.LOADERS.items()
        },
    ),
    Row(
        "the state of an NNX optimizer, saved by plain Orbax, into that of optax",
        trained_optimizer,
        has_its_moments,
        {
            "treeload": restored_optimizer,
            NNX: from_what_orbax_restores(into_an_optimizer),
            STATE_DICT: from_what_orbax_restores(peers.with_from_state_dict),
            BYTES: from_what_orbax_restores(peers.with_from_bytes),
            EQUINOX: NO_ORBAX,
        },
    ),
    Row(
        "to resume, the latest of `checkpoint_0.8`, `checkpoint_0.85`, `checkpoint_0.9`",
        pair({"w": jnp.zeros(2)}, None),
        same_as({"w": np.full(2, 3, np.float32)}),
        training(FRACTIONS, write_orbax),
    ),
    Row(
        "to resume, a directory that holds Flax's `model_1` and `model_2`",
        pair({"w": jnp.zeros(2)}, None),
        same_as({"w": np.full(2, 2, np.float32)}),
        training(["model_1", "model_2"], write_msgpack),
    ),
    Row(
        "to resume, a directory that holds only what nobody knows",
        pair({"w": jnp.zeros(2)}, None),
        never,
        training(["weights.bin"], write_unknown, write_unknown),
        "holds no checkpoint that treeload knows, but 'weights.bin'",
    ),
    Row(
        "a plan that is copied (`copy.deepcopy`) or pickled, and then loaded",
        pair({"w": jnp.zeros(2)}, {"w": ones()}),
        same_as({"copied": {"w": ones()}, "pickled": {"w": ones()}}),
        {
            "treeload": copied_plan,
            **but(NO_PLAN, "Orbax", "Orbax, partial", NNX, STATE_DICT, BYTES, EQUINOX),
        },
    ),
]

COLUMNS = ["treeload", "Orbax", "Orbax, partial", NNX, FLAX, EQUINOX]
ORBAX = "not compatible with the stored shape|Unsupported (leaf|data) type|StepNotFoundError"
REFUSALS = {  # what each says when it refuses: another error is a fault of this test
    "Orbax": f"structures do not match|{ORBAX}",
    "Orbax, partial": f"Type mismatch at key path|{ORBAX}",
    NNX: "Expected a subgraph|Found data on value|Invalid key|Cannot store a Ref|Cannot set key '0' on immut",
    STATE_DICT: "do not match",
    BYTES: "do not match|can not serialize|Cannot set fill value",
    EQUINOX: "has changed shape|has changed dtype|Error at leaf with path",
}


def run(row: Row, loader: str, folder: Path) -> Seen | None:
    """What was seen of a loader; None where it has no way, as the page says."""
    way = row.otherwise.get(loader, peers.LOADERS[loader])
    if isinstance(way, str):
        return None
    destination, source = row.make()
    seen = observe(lambda: way(destination, source, folder), row.is_right)
    if loader == "treeload":
        assert (seen.word in (ERROR, SAID)) == bool(row.says), seen.said
        assert re.search(row.says, seen.said), seen.said
    elif seen.word == ERROR:
        assert re.search(REFUSALS[loader], seen.said), seen.said
    return seen


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.text)
def test_a_loader_does_what_the_page_says(row: Row, column: str, tmp_path: Path) -> None:
    words = {}
    for number, loader in enumerate(column.split(", ") if column == FLAX else [column]):
        (tmp_path / str(number)).mkdir()
        seen = run(row, loader, tmp_path / str(number))
        words[NO_CELL if seen is None else seen.word] = seen
    assert table(PAGE)[row.text][column] == ", ".join(words), words


def test_the_page_has_no_other_rows_and_columns() -> None:
    shown = table(PAGE)
    assert list(shown) == [row.text for row in ROWS]
    assert all(list(cells) == COLUMNS for cells in shown.values())


@pytest.mark.parametrize("say", [warnings.warn, logging.getLogger("absl").warning, print])
def test_a_loader_that_says_something_is_not_silent(say: Callable[[str], None]) -> None:
    seen = observe(lambda: say("a leaf was left out"), never)
    assert seen == (Seen(SILENT, "") if say is print else Seen(SAID, "a leaf was left out"))


def test_what_treeload_does_not_say_is_where_the_page_says(tmp_path: Path) -> None:
    treeload.save(tmp_path / "module", Scaled(ones(), 0.25))
    assert "rate (a float)" in str(treeload.inspect(tmp_path / "module"))
    assert "rate" not in str(treeload.plan(Scaled(jnp.zeros(2)), tmp_path / "module"))
    fresh, source = jax_optimizer()
    ocp.save(tmp_path / "plain", source)
    assert "by position" in treeload.plan(fresh, tmp_path / "plain").summary()


def test_the_page_says_why_a_cell_is_empty() -> None:
    text = re.sub(r"\s+", " ", PAGE.read_text("utf-8")).lower()
    for why in {why for row in ROWS for why in row.otherwise.values() if isinstance(why, str)}:
        assert why.lower() in text
