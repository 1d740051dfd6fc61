"""The datasets of an HDF5 file, each checked before anything is believed; the one place that imports h5py.

Owns what of HDF5 is followed: groups, and datasets of numbers whose values lie in this very file. Links out
of it, virtual datasets, external storage and filters that are no part of h5py are refused by name, before a
value is read: each of them opens another file, or loads a library.
https://docs.hdfgroup.org/hdf5/v1_14/_f_m_t3.html

h5py parses the file, from a stream; whatever it raises is turned into a SourceError by whoever calls this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import jax
import ml_dtypes
import numpy as np

from treeload._files.open import brief
from treeload._files.regions import Box, extents_of, slices_of
from treeload._formats.hdf5.pages import Pages
from treeload._leaves.spec import Spec, is_numeric, nbytes, print_spec
from treeload._naming.bounds import name_from_file
from treeload._naming.name import Name, print_name

_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""The filters that h5py brings itself; another one is a library that HDF5 looks for on the disk."""


_CODES = {4: "szip", 5: "nbit", 6: "scaleoffset"}


_MOST_OBJECTS = 1 << 20


_MOST_CHUNK = 64 << 20  # bytes, unless the dataset is larger: h5py's own are of 1 MiB


_SMALLEST = 1100  # how many bytes one byte may become: deflate's limit is 1032


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset.

    Attributes:
        path: by which it is found in the file.
        spec: its shape and dtype, in this machine's order of bytes.
        offset: where its values lie in the file, where they do so as plain bytes.
    """

    path: bytes
    spec: Spec
    offset: int | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Attributes:
        datasets: name → dataset, in the order of the file; what is there under two names is there twice.
        ties: name → the name under which the same dataset was met before.
        texts: the names of what is no array of numbers: texts, and spaces without any element.
    """

    datasets: dict[Name, Dataset]
    ties: dict[Name, Name]
    texts: list[Name]


def look(stream: Pages, size: int) -> Contents:
    """What is in the file of ``size`` bytes that ``stream`` reads; no dataset is read.

    Raises:
        ValueError: something in it is not followed, or says more than there is.
    """
    contents = Contents({}, {}, [])
    met: dict[int, Name] = {}
    with h5py.File(stream, "r") as file:
        for keys, found in _walk(file.id):
            name = name_from_file(keys)
            try:
                dataset = _dataset(h5py.Dataset(found), b"/".join(key.encode() for key in keys), size)
            except ValueError as error:
                raise ValueError(f"{print_name(name)!r} {error}") from error
            if dataset is None:
                contents.texts.append(name)
                continue
            contents.datasets[name] = dataset
            first = met.setdefault(_address(found), name)
            if first is not name:
                contents.ties[name] = first
    return contents


class Reader:
    """Reads datasets of a file, or boxes of them, through h5py."""

    def __init__(self, stream: Pages) -> None:
        self._file = h5py.File(stream, "r")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def box(self, dataset: Dataset, box: Box) -> np.ndarray[Any, Any]:
        """The values in one box of a dataset.

        Raises:
            ValueError: the file holds too little for it.
        """
        found = self._file[dataset.path]
        _check_stored(found)
        values = np.empty(extents_of(box), dataset.spec.dtype)
        if dataset.spec.dtype == _BFLOAT16:
            values[...] = found[slices_of(box)].view(_BFLOAT16)
        elif values.size:
            found.read_direct(values, slices_of(box))
        if values.dtype == np.bool_ and values.view(np.uint8).max(initial=0) > 1:
            raise ValueError("it holds a boolean that is neither 0 nor 1")
        return values


def _walk(root: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every dataset and the names on the way to it. A group is entered once: no file is without end."""
    groups: dict[int, tuple[str, ...]] = {_address(root): ()}
    left = _MOST_OBJECTS
    ahead: list[tuple[tuple[str, ...], Any]] = [((), root)]
    while ahead:
        above, group = ahead.pop()
        below: list[tuple[tuple[str, ...], Any]] = []
        for raw in group:
            left -= 1
            if left < 0:
                raise ValueError(f"it holds more than {_MOST_OBJECTS:,} objects")
            keys = (*above, _key(raw))
            name = name_from_file(keys)
            kind = group.links.get_info(raw).type
            if kind != h5py.h5l.TYPE_HARD:
                how = "a link into another file" if kind == h5py.h5l.TYPE_EXTERNAL else "a symbolic link"
                raise ValueError(f"{print_name(name)!r} is {how}, which is not followed")
            found = h5py.h5o.open(group, raw)
            if isinstance(found, h5py.h5d.DatasetID):
                yield keys, found
            elif isinstance(found, h5py.h5g.GroupID):
                where = _address(found)
                if where in groups:
                    raise ValueError(
                        f"{print_name(name)!r} is the same group as {print_name(groups[where])!r}"
                    )
                groups[where] = keys
                below.append((keys, found))
        ahead += reversed(below)


def _key(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"the name {raw[:80]!r} is no text") from None


def _address(found: Any) -> int:
    address: int = h5py.h5o.get_info(found).addr
    return address


def _dataset(found: Any, path: bytes, size: int) -> Dataset | None:
    """What a dataset says of itself, if that can be followed; None where it is no array of numbers."""
    what = found.id.get_type().get_class()
    if what == h5py.h5t.STRING or found.shape is None:
        return None
    spec = _spec(found)
    made = found.id.get_create_plist()
    layout = made.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise ValueError("is a virtual dataset, whose values lie in other files")
    if layout == h5py.h5d.CONTIGUOUS and made.get_external_count():
        raise ValueError("has its values in other files")
    for number in range(made.get_nfilters()):
        code = made.get_filter(number)[0]
        if code not in _FILTERS:
            raise ValueError(f"is compressed by a filter that is not read: {_CODES.get(code, code)}")
    if layout == h5py.h5d.CHUNKED:
        chunk = math.prod(found.chunks) * spec.dtype.itemsize
        if chunk > max(_MOST_CHUNK, nbytes(spec)):
            raise ValueError(f"has chunks of {chunk:,} bytes, and takes {nbytes(spec):,} itself")
    offset = found.id.get_offset() if layout == h5py.h5d.CONTIGUOUS else None
    if offset is not None and offset + nbytes(spec) > size:
        raise ValueError(f"is {print_spec(spec)} from byte {offset:,} on, and the file has {size:,}")
    return Dataset(path, spec, offset if _is_plain(found, spec) else None)


_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _spec(found: Any) -> Spec:
    kind = found.id.get_type()
    if kind.get_class() == h5py.h5t.OPAQUE:
        # NumPy's bytes for a dtype that it does not know: two of them are bfloat16, as Keras writes it.
        if kind.get_size() != 2:
            raise ValueError(
                f"has an opaque dtype of {kind.get_size()} bytes, of which the kind cannot be told"
            )
        dtype = _BFLOAT16
    elif kind.get_class() in (h5py.h5t.VLEN, h5py.h5t.REFERENCE, h5py.h5t.ARRAY, h5py.h5t.TIME):
        raise ValueError("holds what is no number: lists, references or the like")
    else:
        dtype = found.dtype.newbyteorder("=")
    if not is_numeric(dtype):
        raise ValueError(f"has dtype {brief(str(dtype))}, which is no number's")
    # Python's integers do not overflow, NumPy's do: also where another axis is 0.
    if math.prod(extent or 1 for extent in found.shape) * dtype.itemsize > 2**63 - 1:
        raise ValueError(f"has a shape that is larger than any array, {list(found.shape)}")
    return jax.ShapeDtypeStruct(tuple(map(int, found.shape)), dtype)


def _is_plain(found: Any, spec: Spec) -> bool:
    """Whether the bytes in the file are those of the array."""
    kind = found.id.get_type()
    if kind.get_class() == h5py.h5t.OPAQUE:
        return True
    little = spec.dtype.newbyteorder("<")
    return bool(h5py.h5t.py_create(little, logical=True) == kind)


def _check_stored(found: Any) -> None:
    """Nothing, if what is stored of a dataset can be all of it: the rest of a hostile one is made up."""
    stored, all_of_it = found.id.get_storage_size(), nbytes(_spec(found))
    if all_of_it > _SMALLEST * stored:
        raise ValueError(f"it is said to take {all_of_it:,} bytes, and {stored:,} are stored")
    if found.chunks is not None:
        chunks = math.prod(-(-size // step) for size, step in zip(found.shape, found.chunks, strict=True))
        if found.id.get_num_chunks() != chunks:
            raise ValueError(f"it has {found.id.get_num_chunks():,} chunks of {chunks:,}")
