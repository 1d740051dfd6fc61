"""The globals that mean something in a pickle of PyTorch's, and what each describes.

Owns the one list of them. All that can be done with one is to ask for what it describes, by the functions of
this file: nothing that bears its name is imported or called. Every other global is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from treeload._files.open import brief
from treeload._formats.pytorch.described import ElementType, Keyed, NumpyType, Other, Storage, Tensor

Arguments: TypeAlias = "tuple[Any, ...]"


class Known:
    """A global that is called in pickles: ``describe`` gives what a call with these arguments would make.

    Attributes:
        name: what it is called.
        is_object: it is a class whose objects are made without a call, and get their attributes later.
    """

    __slots__ = ("describe", "is_object", "name")

    def __init__(self, name: str, describe: Callable[[Arguments], Any], *, is_object: bool = False) -> None:
        self.name, self.describe, self.is_object = name, describe, is_object


def known(module: str, name: str) -> Any:
    """What the global ``name`` of ``module`` stands for.

    Raises:
        ValueError: it is none that is known.
    """
    found = _CALLED.get((module, name)) or _TYPES.get((module, name))
    if found is None:
        raise ValueError(_refused(f"{module}.{name}"))
    return found


def _refused(name: str) -> str:
    """Why a global is not read, and what to save instead."""
    what = f"it needs {brief(name)}, "
    last = name.rpartition(".")[2]
    if last.lower().startswith(("qint", "quint", "_rebuild_q")):
        return f"{what}for a quantised tensor, which is not read: save tensor.dequantize()"
    if "sparse" in last or "nested" in last:
        return f"{what}for a tensor that is not dense, which is not read: save tensor.to_dense()"
    if last.startswith("_rebuild_") or name.startswith("torch._subclasses"):
        return f"{what}for a kind of tensor that is not read: save plain tensors"
    if name.startswith("torch.") and name.count(".") == 1 and last.islower():
        return f"{what}a dtype that no array here has"
    if name.startswith("torch.nn.") or last in ("Module", "Sequential"):
        return f"{what}a module itself, whose code is not run: save its weights, module.state_dict()"
    return (
        f"{what}which treeload does not know, and nothing that a pickle names is ever called: save the "
        "weights alone, torch.save(model.state_dict(), path), or as safetensors"
    )


# --- Dtypes and storages -----------------------------------------------------------------------------


_DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "float32": np.dtype("<f4"),
        "float64": np.dtype("<f8"),
        "float16": np.dtype("<f2"),
        "bfloat16": np.dtype(ml_dtypes.bfloat16),
        "int64": np.dtype("<i8"),
        "int32": np.dtype("<i4"),
        "int16": np.dtype("<i2"),
        "int8": np.dtype("i1"),
        "uint8": np.dtype("u1"),
        "uint16": np.dtype("<u2"),
        "uint32": np.dtype("<u4"),
        "uint64": np.dtype("<u8"),
        "bool": np.dtype(np.bool_),
        "complex64": np.dtype("<c8"),
        "complex128": np.dtype("<c16"),
        "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
        "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
        "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
        "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
        "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
    }
)


_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


_TYPES: dict[tuple[str, str], ElementType] = {
    **{("torch", name): ElementType(f"torch.{name}", dtype) for name, dtype in _DTYPES.items()},
    **{
        (module, storage): ElementType(f"torch.{storage}", _DTYPES[name])
        for storage, name in _STORAGES.items()
        for module in ("torch", "torch.storage")
    },
}


# --- Tensors -----------------------------------------------------------------------------------------


_MOST_DIMENSIONS = 64  # NumPy's limit


def _tensor(arguments: Arguments) -> Tensor:
    """``_rebuild_tensor(storage, offset, size, stride)``."""
    storage, offset, size, stride = arguments
    if not isinstance(storage, Storage):
        raise ValueError("it has a tensor without a storage")
    return _view(storage, storage.dtype, (offset, size, stride))


def _tensor_v2(arguments: Arguments) -> Tensor:
    """``_rebuild_tensor_v2``: also whether it requires a gradient, hooks, and metadata."""
    _refuse_lazy(arguments[6:])
    return _tensor(arguments[:4])


def _tensor_v3(arguments: Arguments) -> Tensor:
    """``_rebuild_tensor_v3``: of a storage without a type; a dtype before the metadata."""
    storage, element = arguments[0], arguments[6]
    _refuse_lazy(arguments[7:])
    if not isinstance(storage, Storage) or not isinstance(element, ElementType):
        raise ValueError("it has a tensor without a storage or without a dtype")
    return _view(storage, element.dtype, arguments[1:4])


def _view(storage: Storage, dtype: np.dtype[Any], where: Arguments) -> Tensor:
    offset, size, stride = where
    if not (_are_counts((offset,)) and _are_counts(size) and _are_counts(stride)):
        raise ValueError("it has a tensor whose offset, sizes or strides are no counts")
    if len(size) != len(stride) or len(size) > _MOST_DIMENSIONS:
        raise ValueError(f"it has a tensor of {len(size)} sizes and {len(stride)} strides")
    return Tensor(storage, dtype, offset, tuple(size), tuple(stride))


def _are_counts(values: Any) -> bool:
    # type(), because True is an int.
    return isinstance(values, tuple) and all(type(n) is int and 0 <= n < 2**63 for n in values)


def _refuse_lazy(metadata: Arguments) -> None:
    """Nothing, where a tensor's elements are what lies in the storage."""
    for said in metadata:
        if isinstance(said, Keyed) and any(value is not False for value in said.values):
            raise ValueError(
                "it has a tensor that is conjugated or negated only when it is used, which is not read: save "
                "tensor.resolve_conj().resolve_neg()"
            )


def _parameter(arguments: Arguments) -> Any:
    """``_rebuild_parameter(data, requires_grad, hooks)``."""
    tensor, _, _ = arguments
    if not isinstance(tensor, Tensor):
        raise ValueError("it has a parameter that is no tensor")
    return tensor


# --- Containers and what stands beside ---------------------------------------------------------------


def _ordered_dict(arguments: Arguments) -> Keyed:
    """``OrderedDict()``, or of a list of pairs, as Python 2 wrote them."""
    made = Keyed()
    for pair in arguments[0] if arguments else ():
        key, value = pair
        made.keys.append(key)
        made.values.append(value)
    return made


def _size(arguments: Arguments) -> Any:
    (sizes,) = arguments
    return tuple(sizes) if isinstance(sizes, (list, tuple)) else Other("a torch.Size")


def _namespace(arguments: Arguments) -> Keyed:
    if arguments:
        raise ValueError("it has a Namespace made of arguments")
    return Keyed(by_attributes=True)


_LATIN = ("latin1", "latin-1", "iso-8859-1")


def _encoded(arguments: Arguments) -> bytes:
    """``_codecs.encode(text, "latin1")``: how bytes are written for Python 2."""
    text, encoding = arguments
    if not isinstance(text, str) or encoding not in _LATIN:
        raise ValueError("it has bytes that are encoded as what is not Latin-1")
    return text.encode("latin-1")


_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")


def _numpy_dtype(arguments: Arguments) -> NumpyType:
    code = arguments[0]
    if not isinstance(code, str) or len(code) > 32:
        raise ValueError("it has a NumPy dtype that is none")
    return NumpyType(code)


def _numpy_scalar(arguments: Arguments) -> Any:
    """``scalar(dtype, bytes)``, as a NumPy scalar in the machine's order of bytes."""
    dtype, raw = arguments
    if not isinstance(dtype, NumpyType) or not isinstance(raw, bytes):
        raise ValueError("it has a NumPy scalar that is none")
    if dtype.code[:1] in ("U", "S", "M", "m"):
        return Other("a NumPy scalar that is no number")
    if not _NUMBERS.fullmatch(dtype.code):
        raise ValueError(f"it has a NumPy scalar of dtype {brief(dtype.code)}, which is not read")
    stored = np.dtype(dtype.code).newbyteorder(dtype.order)  # type: ignore[arg-type]  # one of four, see BUILD
    if len(raw) != stored.itemsize or (dtype.code == "b1" and raw[0] > 1):
        raise ValueError(f"it has a NumPy scalar of dtype {dtype.code} in {len(raw)} bytes")
    return np.frombuffer(raw, stored).astype(stored.newbyteorder("="))[0]


_CALLED: dict[tuple[str, str], Known] = {
    (module, name): Known(f"{module}.{name}", describe, is_object=name == "Namespace")
    for modules, name, describe in (
        (("collections",), "OrderedDict", _ordered_dict),
        (("torch._utils",), "_rebuild_tensor", _tensor),
        (("torch._utils",), "_rebuild_tensor_v2", _tensor_v2),
        (("torch._utils",), "_rebuild_tensor_v3", _tensor_v3),
        (("torch._utils",), "_rebuild_parameter", _parameter),
        (("torch",), "Size", _size),
        (("torch",), "device", lambda arguments: Other("a torch.device")),
        (("builtins", "__builtin__"), "set", lambda arguments: Other("a set")),
        (("argparse",), "Namespace", _namespace),
        (("_codecs",), "encode", _encoded),
        (("numpy",), "dtype", _numpy_dtype),
        (("numpy.core.multiarray", "numpy._core.multiarray"), "scalar", _numpy_scalar),
    )
    for module in modules
}
