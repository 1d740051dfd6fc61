"""A BERT of a few thousand random weights, written the way Hugging Face writes BERT.

What the demo restores where all-MiniLM-L6-v2 is not installed: other sizes and no meaning, but the
same names, the same layout and so the same rules. Its vocabulary is the words of the demo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from treeload.demo._bert import BertConfig
from treeload.demo._sentences import QUERY, SENTENCES

_WORD = re.compile(r"\w+|[^\w\s]")
_START, _END = 1, 2  # 0 is padding
_VOCABULARY = {
    word: number
    for number, word in enumerate(sorted(set(_WORD.findall(" ".join((QUERY, *SENTENCES)).lower()))), start=3)
}

SMALL = BertConfig(vocab=3 + len(_VOCABULARY), hidden=32, layers=2, heads=4, intermediate=64, positions=32)


def words(sentence: str) -> list[int]:
    """The ids of a sentence's words in the small model's vocabulary, between a start and an end."""
    return [_START, *(_VOCABULARY[word] for word in _WORD.findall(sentence.lower())), _END]


def write_small_bert(path: Path, *, seed: int = 0) -> None:
    """Writes a ``BertModel`` of the sizes of ``SMALL`` to ``path`` as safetensors."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray[Any, Any]] = {
        name: rng.normal(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.1, shape).astype(np.float32)
        for name, shape in hugging_face_shapes(SMALL)
    }
    tensors["embeddings.position_ids"] = np.arange(SMALL.positions)[None]
    save_file(tensors, path)


def hugging_face_shapes(config: BertConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every parameter of a ``BertModel``, as PyTorch lays them out: [out, in]."""

    def linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (outputs, inputs)
        yield f"{name}.bias", (outputs,)

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (config.hidden,)
        yield f"{name}.bias", (config.hidden,)

    yield "embeddings.word_embeddings.weight", (config.vocab, config.hidden)
    yield "embeddings.position_embeddings.weight", (config.positions, config.hidden)
    yield "embeddings.token_type_embeddings.weight", (config.token_types, config.hidden)
    yield from norm("embeddings.LayerNorm")
    for i in range(config.layers):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", config.hidden, config.hidden)
        yield from linear(f"{layer}.attention.output.dense", config.hidden, config.hidden)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from linear(f"{layer}.intermediate.dense", config.hidden, config.intermediate)
        yield from linear(f"{layer}.output.dense", config.intermediate, config.hidden)
        yield from norm(f"{layer}.output.LayerNorm")
    yield from linear("pooler.dense", config.hidden, config.hidden)
