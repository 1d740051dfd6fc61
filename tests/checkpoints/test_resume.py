"""Where a training goes on: which checkpoint is the latest, what is none, and where a new training starts."""

from __future__ import annotations

import functools
import logging
import shutil
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import treeload
from treeload import From, LoadError, Policy, Rename, SourceError
from treeload._files import replace as _exchange


def tree(value: float) -> dict[str, Any]:
    return {"w": jnp.full(3, value), "n": jnp.int32(value)}


def abstract() -> Any:
    return jax.eval_shape(lambda: tree(0.0))


def never() -> Any:
    raise AssertionError("the pretrained source is not wanted")


def value_of(state: Any) -> float:
    return float(state["w"][0])


def break_off(checkpoint: Path) -> None:
    """Makes a complete checkpoint unreadable: the arrays are gone, the names are there."""
    for folder in [*checkpoint.rglob("d"), *checkpoint.rglob("ocdbt.process_0")]:
        shutil.rmtree(folder, ignore_errors=True)


def save_with_manager(root: Path, *steps: int) -> None:
    with ocp.CheckpointManager(root) as manager:
        for step in steps:
            manager.save(step, args=ocp.args.StandardSave(tree(step)))


# The latest.


def test_the_latest_step_of_a_checkpoint_manager(tmp_path: Path) -> None:
    save_with_manager(tmp_path, 2, 9, 10)
    state, step = treeload.resume(abstract(), tmp_path, otherwise=never)
    assert (value_of(state), step) == (10.0, 10)


@pytest.mark.parametrize("series", ["", "step_", "ckpt-"])
def test_the_latest_step_that_treeload_saved_by_number_and_not_by_text(tmp_path: Path, series: str) -> None:
    for step in (9, 100, 20):
        treeload.save(tmp_path / f"{series}{step}", tree(step))
    (tmp_path / "log.txt").write_text("2000")
    (tmp_path / "events_3000").mkdir()
    if series:
        (tmp_path / "2026").mkdir()  # of another's
    state, latest = treeload.resume(abstract(), tmp_path, otherwise=never)
    assert (value_of(state), latest) == (100.0, 100)


def test_flaxs_own_checkpoint_files(tmp_path: Path) -> None:
    for step in (9, 10):
        content = flax.serialization.to_bytes(jax.tree.map(np.asarray, tree(step)))
        (tmp_path / f"checkpoint_{step}").write_bytes(content)
    state, latest = treeload.resume(abstract(), str(tmp_path), otherwise=never)
    assert (value_of(state), latest) == (10.0, 10)


def test_a_checkpoint_that_each_save_replaces(tmp_path: Path) -> None:
    for step in (1, 2):
        treeload.save(tmp_path / "run7", tree(step), metadata={"step": step}, overwrite=True)
    state, latest = treeload.resume(abstract(), tmp_path / "run7", otherwise=never)
    assert (value_of(state), latest) == (2.0, 2)


def test_its_step_may_be_a_leaf(tmp_path: Path) -> None:
    state = {
        "params": tree(1.0),
        "optimizer": {"step": jnp.uint32(40)},
        "lr": {"step": 0.5},
        "of": {"step": jnp.arange(2)},
    }
    treeload.save(tmp_path / "run", state)
    assert treeload.resume(state, tmp_path / "run", otherwise=never)[1] == 40


def test_one_that_says_no_step_is_an_error_that_says_how_to_save_it(tmp_path: Path) -> None:
    treeload.save(tmp_path / "run7", tree(1.0), metadata={"step": True})
    for skip in (False, True):  # it can be read
        with pytest.raises(SourceError, match=r"does not say its step: save it with metadata=\{'step'"):
            treeload.resume(abstract(), tmp_path / "run7", otherwise=never, skip_unreadable=skip)


def test_an_item_is_chosen_and_old_names_are_renamed_by_a_from(tmp_path: Path) -> None:
    with ocp.CheckpointManager(tmp_path) as manager:
        items = {
            "state": ocp.args.StandardSave({"old": jnp.ones(3), "n": 1}),
            "ema": ocp.args.StandardSave(tree(2.0)),
        }
        manager.save(5, args=ocp.args.Composite(**items))
    dst = {"w": jnp.zeros(3), "n": 0}
    with pytest.raises(SourceError, match="several items: 'ema', 'state'"):
        treeload.resume(dst, tmp_path, otherwise=never)
    source = From(tmp_path, item="state", rules=Rename("old", "w"))
    state, step = treeload.resume(dst, source, otherwise=never)
    assert (value_of(state), state["n"], step) == (1.0, 1, 5)


# What is none.


def test_what_was_never_completed_is_no_checkpoint_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_with_manager(tmp_path, 3)
    shutil.copytree(tmp_path / "3", tmp_path / "4.orbax-checkpoint-tmp")
    state, step = treeload.resume(abstract(), tmp_path, otherwise=never)
    assert (value_of(state), step) == (3.0, 3)
    assert "'4.orbax-checkpoint-tmp'" in caplog.text and "never completed" in caplog.text


def test_a_directory_of_nothing_complete_starts_anew(tmp_path: Path) -> None:
    treeload.save(tmp_path / "run" / "4", tree(4.0))
    (tmp_path / "run" / "4").rename(tmp_path / "run" / "4.orbax-checkpoint-tmp-1700")
    (tmp_path / "run" / ".gitignore").write_text("*")
    state, step = treeload.resume(abstract(), tmp_path / "run", otherwise=tree(7.0))
    assert (value_of(state), step) == (7.0, None)


def write_msgpack(path: Path, value: float) -> None:
    path.write_bytes(flax.serialization.to_bytes(jax.tree.map(np.asarray, tree(value))))


@pytest.mark.parametrize(
    "name", ["model_{}", "params_{}.msgpack", "checkpoint_{}.msgpack", "ckpt{}", "checkpoint_0.{}"]
)
def test_series_of_flaxs_files_under_any_prefix(name: str, tmp_path: Path) -> None:
    for step in (8, 9):
        write_msgpack(tmp_path / name.format(step), step)
    (tmp_path / "log_300").write_text("text")
    (tmp_path / "metrics_400.json").write_text("{}")
    state, latest = treeload.resume(abstract(), tmp_path, otherwise=never)
    assert (value_of(state), latest) == (9.0, 0.9 if "0." in name else 9)
    assert value_of(treeload.load(tree(0.0), tmp_path)) == 9.0


def test_a_damaged_latest_file_is_not_passed_over(tmp_path: Path) -> None:
    write_msgpack(tmp_path / "model_1", 1.0)
    (tmp_path / "model_2").write_bytes(b"")
    with pytest.raises(SourceError, match="model_2"):
        treeload.resume(abstract(), tmp_path, otherwise=never)
    assert treeload.resume(abstract(), tmp_path, otherwise=never, skip_unreadable=True)[1] == 1


def test_files_beside_steps_that_are_directories_do_not_count(tmp_path: Path) -> None:
    treeload.save(tmp_path / "step_1", tree(1.0))
    write_msgpack(tmp_path / "best_9.msgpack", 9.0)
    assert treeload.resume(abstract(), tmp_path, otherwise=never)[1] == 1
    assert value_of(treeload.load(tree(0.0), tmp_path)) == 1.0


@pytest.mark.parametrize("name", ["config.json", "checkpoint", "events", "log_300"])
def test_what_is_not_understood_is_not_taken_for_a_new_training(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(SourceError, match=f"holds no checkpoint that treeload knows, but '{name}'"):
        treeload.resume(abstract(), tmp_path, otherwise=never)


def test_a_save_that_died_between_its_renames_is_finished(tmp_path: Path) -> None:
    for name in ("old", "new"):
        treeload.save(_exchange.beside(tmp_path / "5") / ("0" * 32) / name, tree(5.0))
    state, step = treeload.resume(abstract(), tmp_path, otherwise=never)
    assert (value_of(state), step) == (5.0, 5)


def test_a_first_save_that_died_is_no_checkpoint(tmp_path: Path) -> None:
    treeload.save(_exchange.beside(tmp_path / "5") / ("0" * 32) / "new", tree(5.0))
    assert treeload.resume(abstract(), tmp_path, otherwise=tree(0.0))[1] is None


# What cannot be read.


def test_a_latest_checkpoint_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    save_with_manager(tmp_path, 3, 4)
    break_off(tmp_path / "4")
    with pytest.raises(SourceError, match="/4"):
        treeload.resume(abstract(), tmp_path, otherwise=never)


def test_it_is_skipped_where_that_is_asked_for_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_with_manager(tmp_path, 2, 3, 4)
    break_off(tmp_path / "4")
    break_off(tmp_path / "3")
    state, step = treeload.resume(abstract(), tmp_path, otherwise=never, skip_unreadable=True)
    assert (value_of(state), step) == (2.0, 2)
    skipped = [record for record in caplog.records if "is skipped" in record.message]
    assert ["/4' (Orbax)" in record.message for record in skipped] == [True, False]
    assert {record.levelno for record in skipped} == {logging.WARNING}


def test_a_flipped_bit_is_unreadable_too(tmp_path: Path) -> None:
    for step in (1, 2):
        treeload.save(tmp_path / str(step), {"w": jnp.full(1000, float(step))})
    data = max((tmp_path / "2").rglob("d/*"), key=lambda file: file.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    dst = {"w": jnp.zeros(1000)}
    with pytest.raises(SourceError, match="'w' is damaged"):
        treeload.resume(dst, tmp_path, otherwise=never)
    state, latest = treeload.resume(dst, tmp_path, otherwise=never, skip_unreadable=True)
    assert (value_of(state), latest) == (1.0, 1)


def test_a_step_without_its_metadata_is_damaged_and_not_passed_over(tmp_path: Path) -> None:
    save_with_manager(tmp_path, 3, 4)
    for file in [*(tmp_path / "4").rglob("_METADATA"), *(tmp_path / "4").rglob("_CHECKPOINT_METADATA")]:
        file.unlink()
    with pytest.raises(SourceError, match="/4"):
        treeload.resume(abstract(), tmp_path, otherwise=never)
    shutil.rmtree(tmp_path / "3")
    with pytest.raises(SourceError, match="/4"):
        treeload.resume(abstract(), tmp_path, otherwise=never)
    assert treeload.resume(abstract(), tmp_path, otherwise=tree(0.0), skip_unreadable=True)[1] is None


def test_a_checkpoint_that_does_not_fit_is_an_error_even_where_skipping_was_asked_for(tmp_path: Path) -> None:
    treeload.save(tmp_path / "1", tree(1.0))
    treeload.save(tmp_path / "2", {"w": jnp.ones(4), "n": jnp.int32(2)})
    with pytest.raises(LoadError, match="shape"):
        treeload.resume(abstract(), tmp_path, otherwise=never, skip_unreadable=True)


def test_checkpoints_whose_order_cannot_be_told_are_an_error(tmp_path: Path) -> None:
    treeload.save(tmp_path / "best", tree(1.0))
    with pytest.raises(SourceError, match="names say no step: 'best'"):
        treeload.resume(abstract(), tmp_path, otherwise=never)
    treeload.save(tmp_path / "a_1", tree(1.0))
    assert treeload.resume(abstract(), tmp_path, otherwise=never)[1] == 1
    treeload.save(tmp_path / "b_2", tree(1.0))
    with pytest.raises(SourceError, match="several series: 'a_1', 'b_2'"):
        treeload.resume(abstract(), tmp_path, otherwise=never)


# A new training.


@pytest.mark.parametrize("there", [False, True])
def test_a_new_training_starts_from_a_source_with_its_rules(tmp_path: Path, there: bool) -> None:
    treeload.save(tmp_path / "pretrained", {"weight": jnp.ones(3), "n": jnp.int32(1)})
    run = tmp_path / "run"
    if there:
        run.mkdir()
    otherwise = From(tmp_path / "pretrained", rules=Rename("weight", "w"))
    state, step = treeload.resume(abstract(), run, otherwise=otherwise)
    assert (value_of(state), step) == (1.0, None)


def test_a_new_training_starts_from_a_path_a_tree_a_plan_or_a_function(tmp_path: Path) -> None:
    treeload.save(tmp_path / "pretrained", tree(2.0))
    dst = abstract()
    head = treeload.plan(tree(5.0), {"w": jnp.full(3, 2.0)}, policy=Policy(missing={"n": "keep"}))
    for otherwise in (
        tmp_path / "pretrained",
        treeload.open(tmp_path / "pretrained"),
        tree(2.0),
        [From({"w": jnp.full(3, 2.0)}), From({"n": jnp.int32(2)})],
        head,
        treeload.plan(dst, tmp_path / "pretrained"),
        lambda: tree(2.0),
        functools.partial(tree, 2.0),
        jax.jit(functools.partial(tree, 2.0)),
    ):
        state, step = treeload.resume(dst, tmp_path / "run", otherwise=otherwise)
        assert (value_of(state), step) == (2.0, None)


def test_what_it_starts_from_must_be_the_whole_state(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="missing"):
        treeload.resume(abstract(), tmp_path, otherwise=lambda: {"w": jnp.ones(3)})
    assert treeload.names(treeload.resume(abstract(), tmp_path, otherwise=tree(1.0))[0]) == ("n", "w")


def test_a_model_is_a_tree_and_not_called(tmp_path: Path) -> None:
    class Model(nnx.Linear):
        def __call__(self, *inputs: Any) -> Any:
            raise AssertionError("called")

    model = Model(2, 3, rngs=nnx.Rngs(0))
    dst = nnx.eval_shape(lambda: Model(2, 3, rngs=nnx.Rngs(1)))
    resumed, step = treeload.resume(dst, tmp_path / "run", otherwise=model)
    assert treeload.diff(resumed, model).equal
    assert step is None


def test_the_function_is_called_only_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    treeload.save(tmp_path / "1", tree(1.0))
    assert treeload.resume(abstract(), tmp_path, otherwise=never)[1] == 1
    with pytest.raises(AssertionError, match="is not wanted"):
        treeload.resume(abstract(), tmp_path / "other", otherwise=never)


def test_a_pretrained_source_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        treeload.resume(abstract(), tmp_path, otherwise=tmp_path / "nowhere", skip_unreadable=True)


# All of the state.


def test_the_state_of_random_numbers_is_not_silently_the_new_one(tmp_path: Path) -> None:
    model = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    treeload.save(tmp_path / "1", {"model": nnx.state(model, nnx.Not(nnx.RngState)), "w": jnp.ones(1)})
    with pytest.raises(LoadError, match="kept beyond those allowed"):
        treeload.resume({"model": model, "w": jnp.ones(1)}, tmp_path, otherwise=never)


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="path of a directory"):
        treeload.resume(abstract(), From(tree(1.0)), otherwise=never)
