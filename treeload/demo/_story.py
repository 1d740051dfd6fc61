"""The demo from beginning to end: restore, use, save, load back, compare; in plain sentences.

Owns the order of events and what is printed. Every step that matters is one call of treeload's
public API.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console

import treeload
from treeload.demo._bert import Bert, BertConfig, embed
from treeload.demo._hugging_face import POLICY, RULES
from treeload.demo._minilm import (
    INSTALL_TOKENIZERS,
    INSTALL_WEIGHTS,
    PACKAGE,
    find_minilm,
    has_tokenizers,
    wordpiece,
)
from treeload.demo._sentences import QUERY, SENTENCES, Tokenise, token_ids
from treeload.demo._small import SMALL, words, write_small_bert


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint that the demo can restore, and what is needed to use it."""

    weights: Path
    config: BertConfig
    tokenise: Tokenise


def tell(console: Console, *, out: Path | None = None, small: bool = False) -> bool:
    """Whether the model that came back from Orbax is, bit for bit, the one that was saved.

    Saves to ``out`` and leaves the checkpoint there; without it, in a directory that is removed again.
    ``small`` takes the small model even where all-MiniLM-L6-v2 is installed.

    Raises:
        TreeloadError: the first step that fails, as treeload says it.
    """
    with tempfile.TemporaryDirectory(prefix="treeload-demo-") as scratch:
        pretrained = _pretrained(console, Path(scratch), small=small)
        model = _restore(console, pretrained)
        _compare_sentences(console, model, pretrained.tokenise)
        path = out or Path(scratch) / "checkpoint"
        return _round_trip(console, model, pretrained.config, path, is_kept=out is not None)


def _pretrained(console: Console, scratch: Path, *, small: bool) -> Pretrained:
    directory = find_minilm()
    if directory is not None and not small:
        _say(console, "all-MiniLM-L6-v2 is installed: restoring its pretrained weights.")
        if not has_tokenizers():
            _say(
                console,
                "The tokenizers library is not installed, so the demo takes the token ids that it knows for "
                "its sentences. To tokenise them here:",
            )
            _copyable(console, INSTALL_TOKENIZERS)
        return Pretrained(directory / "model.safetensors", BertConfig(), wordpiece(directory))
    if directory is None:
        _say(
            console,
            f"The package {PACKAGE} is not installed, so there are no pretrained weights here. "
            "To get them (91 MB):",
        )
        _copyable(console, INSTALL_WEIGHTS)
    _say(
        console,
        "Making a small BERT with random weights, written under the names that Hugging Face uses. What it "
        "finds near has words in common; it knows no meanings.",
    )
    write_small_bert(scratch / "model.safetensors")
    return Pretrained(scratch / "model.safetensors", SMALL, words)


def _restore(console: Console, pretrained: Pretrained) -> Bert:
    _head(console, "Plan")
    plan = treeload.plan(abstract_bert(pretrained.config), pretrained.weights, rules=RULES, policy=POLICY)
    console.print(plan, soft_wrap=True)
    model: Bert = plan.load()
    _say(console, f"\nLoaded {len(plan.entries)} leaves into a model that held no arrays before.")
    return model


def _compare_sentences(console: Console, model: Bert, tokenise: Tokenise) -> None:
    _head(console, f"Nearest to “{QUERY}”")
    for similarity, sentence in nearest(model, QUERY, SENTENCES, tokenise):
        console.print(f"{similarity:6.2f}  {sentence}", markup=False, highlight=False)


def _round_trip(console: Console, model: Bert, config: BertConfig, path: Path, *, is_kept: bool) -> bool:
    _head(console, "Save and load back")
    treeload.save(path, model)
    _say(console, "Saved through Orbax to" if is_kept else "Saved through Orbax, until the demo ends, to")
    _copyable(console, str(path))
    again = treeload.load(abstract_bert(config), path)
    different = different_leaves(model, again)
    if different:
        count = "1 leaf" if len(different) == 1 else f"{len(different)} leaves"
        shown = ", ".join(different[:5]) + (", …" if len(different) > 5 else "")
        _say(console, f"{count} came back different: {shown}.")
        return False
    _say(
        console,
        f"Loaded it into a fresh model, without rules: all {len(treeload.names(model))} leaves are equal, "
        "bit for bit.",
    )
    return True


def abstract_bert(config: BertConfig) -> Bert:
    """A ``Bert`` of shapes and dtypes alone: nothing is computed and no memory is taken."""
    model: Bert = nnx.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0)))
    return model


def nearest(model: Bert, query: str, sentences: Sequence[str], tokenise: Tokenise) -> list[tuple[float, str]]:
    """``sentences`` with their cosine similarity to ``query``, the nearest first."""
    vectors = embed(model, *token_ids([query, *sentences], tokenise))
    similarities = np.asarray(vectors[1:] @ vectors[0])
    return sorted(zip(similarities.tolist(), sentences, strict=True), reverse=True)


def different_leaves(left: Bert, right: Bert) -> list[str]:
    """The names of leaves that do not hold the same bits, dtype and shape in both; sorted."""
    one, other = _bits(left), _bits(right)
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _bits(model: Bert) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    leaves, _ = jax.tree.flatten_with_path(treeload.state(model))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (str(leaf.dtype), leaf.shape, leaf.tobytes())
        for path, leaf in ((path, np.asarray(leaf)) for path, leaf in leaves)
    }


def _head(console: Console, text: str) -> None:
    console.print()
    console.print(text, style="bold", markup=False, highlight=False)


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False)


def _copyable(console: Console, text: str) -> None:
    console.print(f"    {text}", markup=False, highlight=False, soft_wrap=True)
