"""The rules of ``docs/reference/seven-models.md``, and what each of the seven must hold after a load by them.

Owns the destinations that keep the file's module names, as Flax models ported module by module do: only the
last segment and the layout change. Qwen2 and Gemma go into the stacked destinations of ``layouts``. The
truth is plain NumPy over the names, and knows nothing of rules. Refuses to own the rules: they are read
from the page, so that what users copy is what is tested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import layouts
import numpy as np

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "seven-models.md"


def rules() -> dict[str, tuple[Any, ...]]:
    """For each model its rules as the page writes them, at the scaled sizes of ``layouts``."""
    page = _page()
    return {
        "bart-base": page["bart"],
        "bert-base": page["bert"],
        "clip-vit-base-patch32": page["clip"](text=16, vision=24, head=4),
        "convnext-tiny": page["convnext"],
        "gemma-2b-like": page["gemma"](width=24, heads=16),
        "qwen2-like": page["qwen2"](width=28, head=2),
        "wav2vec2-base": page["wav2vec2"],
    }


def renamed() -> dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """For some models the rules in two steps, names and layout, into the destinations of ``layouts``."""
    page = _page()
    return {
        "bart-base": (page["bart_names"], page["bart_layout"]),
        "convnext-tiny": (page["convnext_names"], page["convnext_layout"]),
        "wav2vec2-base": (page["wav2vec2_names"], page["wav2vec2_layout"]),
    }


def _page() -> dict[str, Any]:
    """What the page's blocks define, without those that it does not run and those after the rules."""
    page: dict[str, Any] = {}
    text = PAGE.read_text("utf-8").partition("\n## A load")[0]
    for block in re.findall(r"(?<!-->\n)^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), page)
    return page


def expected(model: str) -> dict[str, np.ndarray]:
    """Every leaf of the destination with the value it must have, under its printed name."""
    layout = layouts.layout(model)
    if model not in _CHANGES:
        return layout.expected
    truth: dict[str, np.ndarray] = {}
    for name, array in layout.source.items():
        last, change = _CHANGES[model](name)
        path = re.sub(r"/(parametrizations/)?weight(/original.)?$", "", name.replace(".", "/"))
        truth[f"{path}/{last}" if last else path] = np.array(change(array), order="C")
    if model == "bart-base":
        shared = layout.source["model.shared.weight"]
        truth["model/encoder/embed_tokens/embedding"] = truth["model/decoder/embed_tokens/embedding"] = shared
        truth["lm_head/kernel"] = np.array(shared.T, order="C")
    return truth


def destination(model: str) -> dict[str, Any]:
    """The destination: nested dicts of zeros."""
    return layouts.nest({name: np.zeros_like(array) for name, array in expected(model).items()})


# What becomes of a tensor of the file: the new last segment (none where the name stays), and the layout.

_Become = tuple[str, Callable[[np.ndarray], np.ndarray]]


def _plain(name: str, *, norms: tuple[str, ...], embeddings: tuple[str, ...] = ()) -> _Become:
    if not name.endswith(".weight"):
        return "", layouts.same
    module = name.split(".")[-2]
    if module in norms:
        return "scale", layouts.same
    return ("embedding", layouts.same) if module in embeddings else ("kernel", layouts.conv)


def _bert(name: str) -> _Become:
    kinds = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    return _plain(name, norms=("LayerNorm",), embeddings=kinds)


def _bart(name: str) -> _Become:
    norms = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm", "layernorm_embedding")
    return _plain(name, norms=norms, embeddings=("shared", "embed_positions"))


def _clip(name: str) -> _Become:
    heads = 6 if name.startswith("vision") else 4
    if re.search(r"self_attn\.[qkv]_proj\.weight", name):
        return "kernel", layouts.heads_in(heads)
    if re.search(r"self_attn\.[qkv]_proj\.bias", name):
        return "", layouts.heads_bias(heads)
    if name.endswith("out_proj.weight"):
        return "kernel", layouts.heads_out(heads)
    norms = ("layer_norm1", "layer_norm2", "final_layer_norm", "pre_layrnorm", "post_layernorm")
    return _plain(name, norms=norms, embeddings=("token_embedding", "position_embedding"))


def _convnext(name: str) -> _Become:
    if re.search(r"downsampling_layer\.0\.weight", name):
        return "scale", layouts.same
    return _plain(name, norms=("layernorm",))


def _wav2vec2(name: str) -> _Become:
    if name.endswith(("original0", "original1")):
        return f"weight_{'gv'[int(name[-1])]}", layouts.conv
    return _plain(name, norms=("layer_norm", "final_layer_norm"))


_CHANGES: Mapping[str, Callable[[str], _Become]] = {
    "bart-base": _bart,
    "bert-base": _bert,
    "clip-vit-base-patch32": _clip,
    "convnext-tiny": _convnext,
    "wav2vec2-base": _wav2vec2,
}
