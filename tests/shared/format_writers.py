"""How each format is written, by the name of the format: what tests of all formats stand on.

A new format has a function here. It is given a directory and flat leaves, and gives back the path to open.
Two leaves that are one array are tied, where the format can say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import bundles
import equinox as eqx
import flax.serialization
import h5py
import jax.numpy as jnp
import numpy as np
import quants
import safetensors.numpy
import torch_files

import treeload

Leaves: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
Writer: TypeAlias = Callable[[Path, Leaves], Path]


def write_safetensors(directory: Path, leaves: Leaves) -> Path:
    safetensors.numpy.save_file(dict(leaves), directory / "x.safetensors")
    return directory / "x.safetensors"


def write_msgpack(directory: Path, leaves: Leaves) -> Path:
    (directory / "x.msgpack").write_bytes(flax.serialization.msgpack_serialize(dict(leaves)))
    return directory / "x.msgpack"


def write_equinox(directory: Path, leaves: Leaves) -> Path:
    eqx.tree_serialise_leaves(directory / "x.eqx", list(leaves.values()))
    return directory / "x.eqx"


def write_tensorflow(directory: Path, leaves: Leaves) -> Path:
    return bundles.write(directory / "x.ckpt", leaves)


def write_hdf5(directory: Path, leaves: Leaves) -> Path:
    stored: dict[int, Any] = {}
    with h5py.File(directory / "x.h5", "w") as file:
        for name, array in leaves.items():
            file[name] = stored.get(id(array), array)
            stored[id(array)] = file[name]
    return directory / "x.h5"


def write_gguf(directory: Path, leaves: Leaves) -> Path:
    return quants.write(directory / "x.gguf", leaves)


def write_npz(directory: Path, leaves: Leaves) -> Path:
    np.savez(directory / "x.npz", **leaves)  # type: ignore[arg-type]  # newer stubs know allow_pickle
    return directory / "x.npz"


def write_pytorch(directory: Path, leaves: Leaves) -> Path:
    return torch_files.write_zip(directory / "x.pt", leaves)


def write_orbax(directory: Path, leaves: Leaves) -> Path:
    arrays = {id(array): jnp.asarray(array) for array in leaves.values()}
    treeload.save(directory / "x", {name: arrays[id(array)] for name, array in leaves.items()})
    return directory / "x"


WRITERS: Mapping[str, Writer] = {
    "safetensors": write_safetensors,
    "msgpack": write_msgpack,
    "equinox": write_equinox,
    "tensorflow": write_tensorflow,
    "hdf5": write_hdf5,
    "gguf": write_gguf,
    "npz": write_npz,
    "pytorch": write_pytorch,
    "orbax": write_orbax,
}
