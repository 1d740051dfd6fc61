"""Leaves through Orbax's own restore: those of layouts that are read in neither way of ours.

Such are arrays of a newer Orbax, kept where neither ``direct`` nor ``tensors`` looks, and leaves that a
handler of the user's wrote; Orbax knows that one if the load stands within the user's ``Context``. Owns what
Orbax says of a tree, and asking it for leaves. Which leaves these are is decided in ``source``.

Orbax is given a target where it knows the leaves by itself, so that it reads what was asked for and no more;
a handler of the user's is asked by a load without one, since Orbax takes whatever in a target has a shape and
a dtype for an array of its own. What it gives is held against what it said before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from treeload._errors import SourceError
from treeload._files.digests import Digest, check_whole
from treeload._files.place import Place
from treeload._files.regions import is_spread, placed, slices_of
from treeload._formats.orbax.quiet import quiet
from treeload._leaves.spec import Spec, is_key, make_spec, print_spec
from treeload._naming.bounds import name_from_file
from treeload._naming.name import Name, print_name

HANDLED = frozenset({"jax.Array", "np.ndarray", "scalar", "string"})
"""What Orbax's own handlers of leaves call what they wrote."""


@dataclass(frozen=True)
class Restored:
    """The tree of one checkpoint, as Orbax knows it.

    Attributes:
        label: what holds the leaves, for messages.
        root: the checkpoint's directory.
        item: the directory of the tree within it; None where it is the same.
        foreign: the leaves that handlers of the user's wrote.
    """

    label: str
    root: Place
    item: str | None
    foreign: frozenset[Name] = frozenset()

    @cached_property
    def said(self) -> Mapping[Name, Any]:
        """What Orbax says that each leaf is; it reads no array.

        Raises:
            SourceError: it cannot say.
        """
        tree = self._ask(self._metadata)
        if tree is None:
            raise SourceError(
                f"{self.label}: Orbax has no handler here for leaves that are stored there: load them within "
                "the ocp.Context whose registry has the handler that wrote them"
            )
        try:
            return {name_from_file(keys): leaf for keys, leaf in _leaves(tree)}
        except ValueError as error:
            raise SourceError(f"{self.label}: a leaf has {error}") from error

    def specs(self) -> Mapping[Name, Spec]:
        """The shape and dtype of each leaf that is an array or a number."""
        found = {name: _spec(leaf) for name, leaf in self.said.items()}
        return {name: spec for name, spec in found.items() if spec is not None}

    def numbers(self) -> frozenset[Name]:
        """Those that were Python's."""
        return frozenset(name for name, leaf in self.said.items() if isinstance(leaf, (int, float)))

    def what(self, name: Name) -> str:
        """What a leaf is of which Orbax does not say that it is an array."""
        return f"what Orbax calls {type(self.said[name]).__name__}"

    def read(
        self, requests: Mapping[Name, Spec], digests: Mapping[Name, Digest]
    ) -> Iterator[tuple[Name, Any]]:
        """The leaves asked for, all at once: Orbax reads no leaf alone.

        Raises:
            SourceError: Orbax cannot, or gives another array than it said.
        """
        target = None if self.foreign.intersection(requests) else self._target(requests, digests)
        tree = self._ask(lambda ocp: ocp.load(self.root, target, checkpointable_name=self.item))
        values = {name_from_file(keys): leaf for keys, leaf in _leaves(tree) if leaf is not ...}
        del tree
        for name, request in requests.items():
            value = values.pop(name, None)
            array = value if isinstance(value, jax.Array) else np.asarray(value)
            if array.shape != request.shape or array.dtype != request.dtype:
                raise SourceError(
                    f"{self.label}: Orbax said that {print_name(name)!r} is {print_spec(request)}, and gives "
                    f"{print_spec(array)}"
                )
            yield name, self._placed(name, request, array, digests.get(name))

    def _placed(self, name: Name, request: Spec, array: Any, known: Digest | None) -> Any:
        if is_key(request.dtype) or (isinstance(array, jax.Array) and is_spread(request.sharding)):
            return array if request.sharding is None else jax.device_put(array, request.sharding)
        held = np.ascontiguousarray(array).reshape(array.shape)
        check_whole(held, known, f"{self.label}: {print_name(name)!r}")
        return placed(request, lambda box: held[slices_of(box)])

    def _target(self, requests: Mapping[Name, Spec], digests: Mapping[Name, Digest]) -> Any:
        """The tree as Orbax nests it, with ``...`` for what is not to be read."""

        def wanted(name: Name) -> Any:
            request = requests.get(name)
            if request is None:
                return ...
            if is_key(request.dtype) or (is_spread(request.sharding) and name not in digests):
                place = request.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
                return jax.ShapeDtypeStruct(request.shape, request.dtype, sharding=place)
            return _OnHost(tuple(request.shape), np.dtype(request.dtype))

        return self._ask(lambda ocp: _mapped(self._metadata(ocp), wanted))

    def _metadata(self, ocp: Any) -> Any:
        if self.item is None or not self.foreign:
            return ocp.metadata(self.root, self.item).metadata
        # The other one refuses leaves that are no arrays.
        return ocp.checkpointables_metadata(self.root).metadata.get(self.item)

    def _ask(self, act: Callable[[Any], Any]) -> Any:
        from orbax.checkpoint import v1 as ocp

        with _its_errors(self.label), quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its advice about itself
            return act(ocp)


@dataclass
class _OnHost:
    """What Orbax takes for the NumPy array that a leaf is to become."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@contextmanager
def _its_errors(label: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise SourceError(f"{label}: Orbax cannot read it: {said}") from error


def _spec(leaf: Any) -> Spec | None:
    if isinstance(leaf, (bool, int, float)):
        return make_spec((), np.asarray(leaf).dtype)
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if not isinstance(shape, tuple) or dtype is None:
        return None
    return make_spec(shape, dtype if is_key(dtype) else np.dtype(dtype))


def _leaves(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each leaf of a tree that Orbax gives, with its keys: it nests dicts, lists and tuples."""
    if isinstance(tree, (Mapping, list, tuple)):
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        for key, node in items:
            yield from _leaves(node, (*above, str(key)))
    elif tree is not None:
        yield above, tree


def _mapped(tree: Any, change: Callable[[Name], Any], above: tuple[str, ...] = ()) -> Any:
    """The tree with something else for each leaf."""
    if isinstance(tree, Mapping):
        return {key: _mapped(node, change, (*above, str(key))) for key, node in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)([_mapped(node, change, (*above, str(at))) for at, node in enumerate(tree)])
    return None if tree is None else change(Name(above))
