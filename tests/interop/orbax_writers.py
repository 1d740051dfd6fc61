"""Every way in which Orbax and Flax write a tree to disk, each a function of (directory, tree) -> path."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax
import orbax.checkpoint as ocp_v0
from orbax.checkpoint import v1 as ocp

Writer = Callable[[Path, Any], Path]


@contextmanager
def _warnings_of_others() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations and advice of Orbax and Flax about themselves
        yield


def v1(directory: Path, tree: Any) -> Path:
    with _warnings_of_others():
        ocp.save(directory / "v1", tree)
    return directory / "v1"


def v1_checkpointables(directory: Path, items: Mapping[str, Any]) -> Path:
    with _warnings_of_others():
        ocp.save_checkpointables(directory / "items", dict(items))
    return directory / "items"


def v1_training(directory: Path, tree: Any) -> Path:
    with _warnings_of_others(), ocp.training.Checkpointer(directory / "run") as checkpointer:
        checkpointer.save(5, tree)
    return directory / "run" / "5"


def _v0(directory: Path, tree: Any, handler: Any) -> Path:
    with _warnings_of_others(), ocp_v0.Checkpointer(handler) as checkpointer:
        checkpointer.save(directory / "v0", tree)
    return directory / "v0"


def v0_standard(directory: Path, tree: Any) -> Path:
    return _v0(directory, tree, ocp_v0.StandardCheckpointHandler())


def v0_pytree(directory: Path, tree: Any) -> Path:
    return _v0(directory, tree, ocp_v0.PyTreeCheckpointHandler())


def v0_without_ocdbt(directory: Path, tree: Any) -> Path:
    return _v0(directory, tree, ocp_v0.PyTreeCheckpointHandler(use_ocdbt=False))


def v0_zarr3(directory: Path, tree: Any) -> Path:
    return _v0(directory, tree, ocp_v0.PyTreeCheckpointHandler(use_zarr3=True))


def v0_zarr3_without_ocdbt(directory: Path, tree: Any) -> Path:
    return _v0(directory, tree, ocp_v0.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=True))


def manager_root(directory: Path, tree: Any, *, steps: tuple[int, ...] = (2, 10), **options: Any) -> Path:
    """A manager's root; the last of ``steps`` holds ``tree``, the others only a number."""
    choices = ocp_v0.CheckpointManagerOptions(**options)
    with _warnings_of_others(), ocp_v0.CheckpointManager(directory / "run", options=choices) as manager:
        for step in steps:
            content = tree if step == steps[-1] else {"other": step}
            manager.save(step, args=ocp_v0.args.StandardSave(content), force=True)
        manager.wait_until_finished()
    return directory / "run"


def manager_step(directory: Path, tree: Any) -> Path:
    return manager_root(directory, tree) / "10"


def manager_items(directory: Path, items: Mapping[str, Any]) -> Path:
    with _warnings_of_others(), ocp_v0.CheckpointManager(directory / "run") as manager:
        saves = {name: ocp_v0.args.StandardSave(tree) for name, tree in items.items()}
        manager.save(3, args=ocp_v0.args.Composite(notes=ocp_v0.args.JsonSave({"a": 1}), **saves))
        manager.wait_until_finished()
    return directory / "run"


def flax_root(directory: Path, tree: Any, *, orbax: bool = True, prefix: str = "checkpoint_") -> Path:
    from flax.training import checkpoints

    before = flax.config.flax_use_orbax_checkpointing
    flax.config.update("flax_use_orbax_checkpointing", orbax)
    try:
        with _warnings_of_others():
            checkpoints.save_checkpoint(directory / "flax", {"other": 1}, 2, prefix=prefix)
            checkpoints.save_checkpoint(directory / "flax", tree, 10, prefix=prefix, keep=9)
    finally:
        flax.config.update("flax_use_orbax_checkpointing", before)
    return directory / "flax"


def flax_step(directory: Path, tree: Any) -> Path:
    return flax_root(directory, tree) / "checkpoint_10"


def flax_msgpack_root(directory: Path, tree: Any) -> Path:
    return flax_root(directory, tree, orbax=False)


ORBAX: tuple[Writer, ...] = (
    v1,
    v1_training,
    v0_standard,
    v0_pytree,
    v0_without_ocdbt,
    v0_zarr3,
    v0_zarr3_without_ocdbt,
    manager_step,
    manager_root,
    flax_step,
    flax_root,
)
