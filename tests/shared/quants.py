"""GGUF files as the gguf library writes them: what the tests of that format read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

RAW = {"bfloat16": gguf.GGMLQuantizationType.BF16}


def write(
    path: Path,
    tensors: Mapping[str, Any],
    *,
    quantised: Mapping[str, gguf.GGMLQuantizationType] | None = None,
    says: Callable[[gguf.GGUFWriter], Any] = lambda writer: None,
) -> Path:
    """Writes a file; ``quantised`` are the types of tensors that are, ``says`` adds to its metadata."""
    writer = gguf.GGUFWriter(path, "llama")
    says(writer)
    for name, value in tensors.items():
        array = np.asarray(value)
        kind = (quantised or {}).get(name) or RAW.get(str(array.dtype))
        if kind is None:
            writer.add_tensor(name, array)
        elif kind in RAW.values():
            writer.add_tensor(name, array.view(np.uint8), raw_dtype=kind)
        else:
            writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
