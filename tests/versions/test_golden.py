"""``check_names``: it fails where the model changed and the history does not tell; its code mends that."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import From, History, Policy, Rename, SourceError, Version
from treeload.testing import check_names


def f32(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, np.float32)


BEFORE = {
    "dense": {"kernel": f32(2, 3), "bias": f32(3)},
    "layers": [{"w": f32(3, 2)} for _ in range(3)],
    "head": f32(5),
    "gone": f32(7),
    "rng": jax.random.key(0),
    "step": 3,
    "rate": 0.5,
}


def failing(path: Path, model: Any, history: History | None = None) -> str:
    with pytest.raises(AssertionError) as raised:
        check_names(path, model, history=history)
    return str(raised.value)


def pasted(message: str) -> Version:
    """The version in a message, as somebody would paste it."""
    lines = message.split("add this to the history:\n\n")[1].split("\n\n")[0]
    return eval(textwrap.dedent(lines), {name: getattr(treeload, name) for name in treeload.__all__})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "names.json"
    assert "has been written" in failing(path, BEFORE)
    return path


def test_the_first_run_writes_the_file_and_fails_and_the_second_passes(path: Path) -> None:
    check_names(path, BEFORE)
    check_names(path, BEFORE, history=History())
    assert '"dense/kernel": {"dtype": "float32", "shape": [2, 3]}' in path.read_text()


CHANGES = {
    "a rename": {**{k: v for k, v in BEFORE.items() if k != "dense"}, "proj": BEFORE["dense"]},
    "a new field": {**BEFORE, "layers": [{"w": f32(3, 2), "scale": f32(9)} for _ in range(3)]},
    "another shape": {**BEFORE, "head": f32(6)},
    "one less": {k: v for k, v in BEFORE.items() if k != "gone"},
    "a transposed leaf": {**BEFORE, "dense": {"kernel": f32(3, 2), "bias": f32(3)}},
    "a leaf that became a subtree": {**BEFORE, "head": {"a": f32(5), "b": f32(8)}},
    "all": {
        "proj": BEFORE["dense"],
        "layers": [{"w": f32(3, 2), "scale": f32(9)} for _ in range(3)],
        "head": f32(6), "rng": BEFORE["rng"], "step": 4, "rate": 0.25,
    },
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_pasted_the_code_makes_the_check_pass_and_the_file_keep_both_versions(
    change: str, path: Path
) -> None:
    model = CHANGES[change]
    version = pasted(failing(path, model))
    check_names(path, model, history=History(version))
    assert path.read_text().count('"version"') == 2
    check_names(path, model, history=History(version))
    assert path.read_text().count('"version"') == 2
    # And what was saved before loads by it.
    assert History(version).check(BEFORE, model).ok
    assert failing(path, BEFORE, history=History(version))


def test_the_next_change_is_the_next_version(path: Path) -> None:
    first = History(pasted(failing(path, CHANGES["a rename"])))
    check_names(path, CHANGES["a rename"], history=first)
    model = {**CHANGES["a rename"], "extra": f32(1)}
    version = pasted(failing(path, model, first))
    assert version.number == 3 and version.policy == Policy(missing={"extra": "keep"}) and not version.rules
    both = History(*first.versions, version)
    check_names(path, model, history=both)
    assert treeload.plan(
        jax.tree.map(_zeros, model), From(jax.tree.map(_zeros, BEFORE), version=1), history=both
    ).ok


def _zeros(spec: Any) -> Any:
    return np.zeros(spec.shape, spec.dtype) if isinstance(spec, jax.ShapeDtypeStruct) else spec


def test_a_history_that_forgets_an_older_version_fails(path: Path) -> None:
    first = History(Version(2, policy=Policy(missing={"extra": "keep"})))
    check_names(path, {**BEFORE, "extra": f32(1)}, history=first)
    forgetful = History(Version(2))
    assert "what was saved at version 1 no longer loads\n  missing: extra (float32[1])" in failing(
        path, {**BEFORE, "extra": f32(1)}, forgetful
    )
    assert "the file knows version 2, which the history does not" in failing(path, BEFORE, History())


def test_where_no_version_is_found_the_difference_is_said_alone(path: Path) -> None:
    idle = History(Version(2, rules=[Rename("nothing", "here")]))
    message = failing(path, BEFORE, idle)
    assert "rule: version 2: Rename('nothing', 'here') matched nothing" in message
    assert "Add the Version to the history that leads" in message and "add this" not in message


def test_a_module_is_known_by_its_names(tmp_path: Path) -> None:
    def model(**how: Any) -> Any:
        return nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0), **how))

    failing(tmp_path / "n.json", model())
    check_names(tmp_path / "n.json", model())
    check_names(tmp_path / "n.json", nnx.Linear(2, 3, rngs=nnx.Rngs(1)))
    version = pasted(failing(tmp_path / "n.json", model(use_bias=False)))
    assert version == Version(2, policy=Policy(unexpected={"bias": "ignore"}))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"format": 2, "versions": []}', '{"format": 1}',
        '{"format": 1, "versions": [{"version": {"": true}, "leaves": {}}]}',
        '{"format": 1, "versions": [{"version": {}, "leaves": {"a": {"dtype": "int8", "shape": [-1]}}}]}',
        '{"format": 1, "versions": [{"version": {"": 1}, "leaves": {"a": {"dtype": "what", "shape": [1]}}}]}',
        '{"format": 1, "versions": [{"version": {"": 1}, "leaves": {"a": {"key": "what", "shape": []}}}]}',
        '{"format": 1, "versions": []}',
    ],
)  # fmt: skip
def test_a_file_that_is_none_of_this_kind_is_a_source_error(text: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(SourceError, match="is no file of a model's names"):
        check_names(path, BEFORE)


def test_the_message_reads_as_it_is_meant_to(path: Path) -> None:
    message = re.sub(r"^'.*?': ", "", failing(path, CHANGES["all"]))
    assert message.splitlines() == [
        "the model is not what it was at version 1:",
        "  missing: layers/{0..2}/scale ×3 (float32[9]), proj/bias (float32[3]), proj/kernel (float32[2,3])",
        "  unexpected: dense/bias (float32[3]), dense/kernel (float32[2,3]), gone (float32[7])",
        "  shape: head (float32[5] -> float32[6])",
        "",
        "If that is meant, add this to the history:",
        "",
        "    Version(",
        "        2,",
        "        rules=[",
        "            Rename('dense/{*rest}', 'proj/{*rest}'),",
        "        ],",
        "        policy=Policy(missing={'layers/*/scale': 'keep'}, unexpected={'gone': 'ignore'}, "
        "shape={'head': 'keep'}),",
        "    )",
        "",
        "What its policy names has no value in what was saved before, or loses it: read it twice.",
    ]
