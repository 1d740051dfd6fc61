"""TensorFlow's checkpoints: ``NAME.index`` and the data files beside it.

Owns which bundle a path means: ``NAME`` itself, a file of it, a directory whose ``checkpoint`` file says
which is the latest, one that holds a single bundle, or a SavedModel. What the index says is in ``bundle``.
Nothing of TensorFlow is needed; the graph (``NAME.meta``, ``saved_model.pb``) is never read.

A tensor's checksum is of all of its bytes. So a tensor is read whole on each host that wants any of it, and
held against it, but where digests lie beside the checkpoint (``treeload.digest``), by which parts can be
told.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax

from treeload._errors import SourceError
from treeload._files.crc32c import masked_crc32c
from treeload._files.digests import damaged
from treeload._files.open import File, brief, look_at, look_within, opened, read_bytes, some
from treeload._files.pieces import Stored
from treeload._files.place import Place, Remote, names_in
from treeload._files.places import AnyPlace, place_of
from treeload._files.read import read_stored
from treeload._files.regions import placed, slices_of
from treeload._files.request import check_requests
from treeload._files.steps import step_of
from treeload._formats.tensorflow.bundle import INDEX, read_bundle
from treeload._formats.tensorflow.names import name_of
from treeload._formats.tensorflow.table import MAGIC
from treeload._leaves.spec import Spec
from treeload._naming.bounds import check_separator
from treeload._naming.name import Name, print_name
from treeload._sources.format import Format
from treeload._sources.source import Source

_STATE = "checkpoint"
"""The file of a directory that says which bundle is the latest: a text of protobuf's."""


_LATEST = re.compile(r'^\s*model_checkpoint_path\s*:\s*(?:"([^"\n]*)"|\'([^\'\n]*)\')\s*$', re.MULTILINE)


_MOST_STATE = 1 << 20


_DATA = re.compile(r"\.data-[0-9]{5}-of-[0-9]{5}")


_SAVED_MODEL = ("saved_model.pb", "variables/variables")


def recognises(path: Place) -> bool:
    """Whether ``path`` is a bundle's index, data or graph, or a directory that holds one or says which."""
    if not path.is_dir():
        return any(_is_index(index) for index in _indices_of(path))
    return _is_state(path) or _of_saved_model(path) is not None or bool(_bundles(path))


def _claims_missing(path: Place) -> bool:
    """A bundle is called by what its files' names have in common, under which there is nothing."""
    return _is_index(_index(path))


class TensorflowSource(Source):
    """The variables of a checkpoint that TensorFlow wrote.

    Of a directory, the bundle that its ``checkpoint`` file calls the latest, else its only one.

    Args:
        path: what the files' names have in common, one of the files, or the directory.
        separator: where the format's joined names are split; ``None`` leaves them in one piece.

    Raises:
        SourceError: anything in the index that is not as the format says, or a data file that is missing
            or too short, before any tensor is read. The message names the file and the tensor.
    """

    gives_away = True
    checks_digests = True
    checks_itself = True

    def __init__(self, path: AnyPlace, *, separator: str | None = "/") -> None:
        check_separator(separator)
        path = place_of(path)
        index, latest = _find(path)
        bundle = read_bundle(index)
        step = step_of(latest) if latest else None
        self.step = None if step is None else step.number
        says = f", {latest}" if latest else ""
        files = f", {bundle.shards} data files" if bundle.shards > 1 else ""
        self.label = f"{str(path)!r} (TensorFlow{says}{files})"
        self._checksums: dict[Name, int] = {}
        self._stored: dict[Name, Stored] = {}
        for key, tensor in bundle.tensors.items():
            name = _named(index, key, separator)
            if name in self._stored:
                raise SourceError(f"{index}: two tensors are called {print_name(name)!r}")
            self._stored[name] = tensor.stored
            self._checksums[name] = tensor.checksum
        self._specs = MappingProxyType({name: stored.spec for name, stored in self._stored.items()})
        self._statics = frozenset(_named(index, key, separator) for key in bundle.others)

    def specs(self) -> Mapping[Name, Spec]:
        """Shape and dtype of every variable, in the order of their keys."""
        return self._specs

    def statics(self) -> frozenset[tuple[str, ...]]:
        return self._statics

    def unchecked(self) -> Source:
        changed = copy.copy(self)
        changed.leaf_digests, changed._checksums = MappingProxyType({}), {}
        return changed

    def read(self, requests: Mapping[Name, Spec]) -> Iterator[tuple[Name, Any]]:
        """The leaves asked for, in the order in which they lie in their files."""
        check_requests(requests, self._specs, self.label)
        told = {name for name in requests if name in self._checksums and name not in self.leaf_digests}
        on_host = {
            name: jax.ShapeDtypeStruct(spec.shape, spec.dtype) if name in told else spec
            for name, spec in requests.items()
        }
        for name, array in read_stored(self._stored, on_host, self.label, self.leaf_digests):
            if name not in told:
                yield name, array
                continue
            if masked_crc32c(array.reshape(-1).view("u1")) != self._checksums[name]:
                raise damaged(f"{self._stored[name].file}: {print_name(name)!r}")
            # Made here and not in the loop: what a caller lets go of is not held until the next one is read.
            yield name, _placed(array, requests[name])


def _placed(array: Any, request: Spec) -> Any:
    return placed(request, lambda box: array[slices_of(box)])


def _named(index: File, key: str, separator: str | None) -> Name:
    try:
        return name_of(key, separator)
    except ValueError as error:
        raise SourceError(f"{index}: the tensor {brief(key)} has {error}") from error


# --- Which bundle ----------------------------------------------------------------------------------


def _find(path: Place) -> tuple[File, str]:
    """The index that ``path`` means, and in a directory what the bundle is called."""
    if path.is_dir():
        directory, name = path, _choose(path)
        return look_within(directory, _index(_below(directory, name))), name
    index = next((each for each in _indices_of(path) if each.is_file()), _index(path))
    return look_at(index), ""


def _choose(directory: Place) -> str:
    """The bundle of a directory: the latest, else the only one."""
    if _is_state(directory):
        return _latest(directory)
    saved_model = _of_saved_model(directory)
    if saved_model is not None:
        return saved_model
    found = _bundles(directory)
    if len(found) == 1:
        return found[0]
    raise SourceError(
        f"{str(directory)!r} holds {len(found)} checkpoints of TensorFlow and no 'checkpoint' file that says "
        f"which is the latest: {some(found)}; open one of them by its own path"
    )


def _latest(directory: Place) -> str:
    """What the ``checkpoint`` file calls the latest, below its own directory."""
    file = look_within(directory, directory / _STATE)
    said = _LATEST.search(_text_of(file))
    if said is None:
        raise SourceError(
            f"{file} does not say which checkpoint is the latest: it has no model_checkpoint_path"
        )
    name = said[1] or said[2] or ""
    if os.path.isabs(name):
        home = None if isinstance(directory, Remote) else os.path.realpath(directory)
        if os.path.realpath(os.path.dirname(name)) != home:
            here = directory / os.path.basename(name)
            which = repr(str(here)) if _is_index(_index(here)) else "a checkpoint by its own path"
            raise SourceError(
                f"{file} calls {brief(name)} the latest, which lies outside of its directory: open {which}"
            )
        name = os.path.basename(name)
    if not name or "\0" in name or ".." in name.split("/"):  # no server is asked for what lies above
        raise SourceError(f"{file} calls {brief(name)} the latest, which is not in its directory")
    if not _index(_below(directory, name)).is_file():
        raise SourceError(f"{file} calls {brief(name)} the latest, and there is no {brief(name + INDEX)}")
    return name


def _text_of(file: File) -> str:
    with opened(file) as handle:
        return read_bytes(handle, min(file.size, _MOST_STATE), 0).decode("utf-8", "replace")


def _is_state(directory: Place) -> bool:
    """Whether a directory has a ``checkpoint`` file of TensorFlow's; Flax and Orbax call others so."""
    if not (directory / _STATE).is_file():
        return False
    try:
        file = look_within(directory, directory / _STATE)
        return b"model_checkpoint_path" in _text_of(file).encode()[:4096]
    except SourceError:
        return False


def _of_saved_model(directory: Place) -> str | None:
    """The variables of a SavedModel, if a directory is one."""
    marker, variables = _SAVED_MODEL
    there = (directory / marker).is_file() and _is_index(_index(_below(directory, variables)))
    return variables if there else None


def _bundles(directory: Place) -> list[str]:
    """The names of the bundles in a directory."""
    found = sorted(name for name in names_in(directory) if name.endswith(INDEX))
    return [name.removesuffix(INDEX) for name in found if _is_index(_below(directory, name))]


def _below(directory: Place, name: str) -> Place:
    for part in name.split("/"):
        directory = directory / part
    return directory


def _index(path: Place) -> Place:
    return path.with_name(path.name + INDEX)


def _indices_of(path: Place) -> Iterator[Place]:
    """The index that a file may be, or be of."""
    name = path.name
    if name.endswith(INDEX):
        yield path
    elif _DATA.fullmatch(name[-len(".data-00000-of-00000") :]):
        yield _index(path.with_name(name[: -len(".data-00000-of-00000")]))
    elif name.endswith(".meta"):
        yield _index(path.with_name(name.removesuffix(".meta")))
    elif name:
        yield _index(path)


def _is_index(path: Place) -> bool:
    """Whether a file ends as an index does, or is called as one and has its data beside it."""
    if not path.is_file():
        return False
    try:
        file = look_at(path)
        with opened(file) as handle:
            if read_bytes(handle, len(MAGIC), max(file.size - len(MAGIC), 0)) == MAGIC:
                return True
        beside = names_in(path.parent)
    except SourceError:
        return False
    own = path.name.removesuffix(INDEX)
    return any(name.startswith(own) and _DATA.fullmatch(name[len(own) :]) for name in beside)


FORMAT = Format(
    name="tensorflow",
    words="TensorFlow: NAME of NAME.index and NAME.data-*, or a directory of them",
    recognises=recognises,
    opens=TensorflowSource,
    options=frozenset({"separator"}),
    claims_missing=_claims_missing,
)
