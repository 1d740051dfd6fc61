"""Seven public models as checkpoints name and shape them, and the same weights as a Flax model holds them.

Owns the shared ground truth for tests of rules: for each file of ``tests/data/layouts`` a source (the
tensors that a checkpoint file holds, filled with random values, its dimensions scaled down so that tests
stay small), a destination in the usual Flax layout, and what each destination leaf must come out as.
The truth is written as a table of (destination, source, change), independent of any rule of treeload, so
that tests compare values and not names. Refuses to own rules: those are what the tests are about.

    layout = layouts.layout("bert-base")
    layout.source       {"bert.pooler.dense.weight": array, ...}: dotted names, as in the file
    layout.nested()     the same as a tree of dicts, split at the dots
    layout.destination  a tree of zeros, nested dicts
    layout.expected     {"pooler/kernel": array, ...}: every leaf of the destination

A change is a NumPy function of one tensor. Where a destination's name lacks an index ``{i}`` that the source
has, the tensors are stacked over it on axis 0 (over two: on axes 0 and 1), as ``nnx.scan`` keeps layers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent.parent / "data" / "layouts"
MODELS = (
    "bart-base",
    "bert-base",
    "clip-vit-base-patch32",
    "convnext-tiny",
    "gemma-2b-like",
    "qwen2-like",
    "wav2vec2-base",
)

Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Layout:
    """One model: what the file holds, what the model wants, and what must come out.

    Attributes:
        model: its name, one of ``MODELS``.
        source: the tensors of the file, under their dotted names; tied ones are left out, as in the file.
        destination: nested dicts of zeros, in the usual Flax layout.
        expected: for each printed destination name, the value it must have after a correct load.
        tied: leaves that the file leaves out, with the tensor they are tied to (dotted names).
    """

    model: str
    source: dict[str, np.ndarray]
    destination: dict[str, Any]
    expected: dict[str, np.ndarray]
    tied: dict[str, str]

    def nested(self) -> dict[str, Any]:
        """The source as nested dicts, its names split at the dots."""
        return nest({name.replace(".", "/"): array for name, array in self.source.items()})


def layout(model: str) -> Layout:
    """The layout of one model, with fresh dicts (the arrays are shared between calls)."""
    source, expected, tied = _made(model)
    zeros = {name: np.zeros_like(array) for name, array in expected.items()}
    return Layout(model, dict(source), nest(zeros), dict(expected), dict(tied))


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts from names joined with ``/``."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = value
    return tree


def tensors(model: str) -> dict[str, tuple[int, ...]]:
    """The names of a file and their scaled shapes; what the file does not store is left out."""
    described = json.loads((DATA / f"{model}.json").read_text())
    small = _SIZES[model]
    return {
        name: tuple(small.get(size, size) for size in tensor["shape"])
        for name, tensor in described["tensors"].items()
        if name not in described["not_stored"]
    }


# For each size of the real model a small one: distinct for distinct, and as divisible as heads need.

_SIZES: dict[str, dict[int, int]] = {
    "bart-base": {50265: 67, 1026: 18, 768: 24, 3072: 96},
    "bert-base": {30522: 67, 512: 18, 768: 24, 3072: 96},
    "clip-vit-base-patch32": {49408: 67, 77: 11, 50: 10, 512: 16, 2048: 64, 768: 24, 3072: 96, 32: 4},
    "convnext-tiny": {96: 6, 192: 12, 384: 24, 768: 48, 1536: 96, 3072: 192},
    "gemma-2b-like": {256000: 131, 3072: 24, 4096: 32, 24576: 192},
    "qwen2-like": {151936: 131, 896: 28, 128: 4, 4864: 152},
    "wav2vec2-base": {512: 16, 768: 24, 3072: 96, 48: 6, 128: 12, 10: 5},
}

# Changes. The names say what the tensor is for.


def same(array: np.ndarray) -> np.ndarray:
    """Embeddings, scales, biases."""
    return array


def linear(array: np.ndarray) -> np.ndarray:
    """[out, in] -> [in, out]."""
    return array.T


def conv(array: np.ndarray) -> np.ndarray:
    """[out, in, *spatial] -> [*spatial, in, out]."""
    return np.moveaxis(array, (0, 1), (-1, -2))


def squeeze(array: np.ndarray) -> np.ndarray:
    """A row kept as a matrix of one row -> the row."""
    return array.reshape(-1)


def heads_in(heads: int) -> Change:
    """[heads * size, in] -> [in, heads, size]: q, k and v kernels."""
    return lambda array: array.T.reshape(array.shape[1], heads, -1)


def heads_out(heads: int) -> Change:
    """[out, heads * size] -> [heads, size, out]: the kernel after attention."""
    return lambda array: array.T.reshape(heads, -1, array.shape[0])


def heads_bias(heads: int) -> Change:
    """[heads * size] -> [heads, size]."""
    return lambda array: array.reshape(heads, -1)


# Tables of (destination, source, change). ``{i}`` and ``{j}`` are indices.

Row = tuple[str, str, Change]


def _dense(destination: str, source: str) -> list[Row]:
    return [
        (f"{destination}/kernel", f"{source}.weight", linear),
        (f"{destination}/bias", f"{source}.bias", same),
    ]


def _conv(destination: str, source: str) -> list[Row]:
    return [
        (f"{destination}/kernel", f"{source}.weight", conv),
        (f"{destination}/bias", f"{source}.bias", same),
    ]


def _norm(destination: str, source: str) -> list[Row]:
    return [
        (f"{destination}/scale", f"{source}.weight", same),
        (f"{destination}/bias", f"{source}.bias", same),
    ]


def _embed(destination: str, source: str) -> list[Row]:
    return [(f"{destination}/embedding", f"{source}.weight", same)]


def _bert() -> list[Row]:
    layer, there = "bert.encoder.layer.{i}", "encoder/layers/{i}"
    return [
        *_embed("embeddings/word", "bert.embeddings.word_embeddings"),
        *_embed("embeddings/position", "bert.embeddings.position_embeddings"),
        *_embed("embeddings/token_type", "bert.embeddings.token_type_embeddings"),
        *_norm("embeddings/norm", "bert.embeddings.LayerNorm"),
        *_dense(f"{there}/attention/query", f"{layer}.attention.self.query"),
        *_dense(f"{there}/attention/key", f"{layer}.attention.self.key"),
        *_dense(f"{there}/attention/value", f"{layer}.attention.self.value"),
        *_dense(f"{there}/attention/out", f"{layer}.attention.output.dense"),
        *_norm(f"{there}/attention_norm", f"{layer}.attention.output.LayerNorm"),
        *_dense(f"{there}/mlp/up", f"{layer}.intermediate.dense"),
        *_dense(f"{there}/mlp/down", f"{layer}.output.dense"),
        *_norm(f"{there}/mlp_norm", f"{layer}.output.LayerNorm"),
        *_dense("pooler", "bert.pooler.dense"),
        *_dense("mlm/dense", "cls.predictions.transform.dense"),
        *_norm("mlm/norm", "cls.predictions.transform.LayerNorm"),
        ("mlm/bias", "cls.predictions.bias", same),
        *_dense("nsp", "cls.seq_relationship"),
    ]


def _bart() -> list[Row]:
    rows: list[Row] = [
        *_embed("shared", "model.shared"),
        ("final_logits_bias", "final_logits_bias", squeeze),
    ]
    for side in ("encoder", "decoder"):
        layer, there = f"model.{side}.layers.{{i}}", f"{side}/layers/{{i}}"
        rows += _embed(f"{side}/position_embedding", f"model.{side}.embed_positions")
        rows += _norm(f"{side}/embedding_norm", f"model.{side}.layernorm_embedding")
        attentions = [("self_attention", "self_attn")]
        if side == "decoder":
            attentions.append(("cross_attention", "encoder_attn"))
        for here, name in attentions:
            for letter in "qkv":
                rows += _dense(f"{there}/{here}/{letter}", f"{layer}.{name}.{letter}_proj")
            rows += _dense(f"{there}/{here}/out", f"{layer}.{name}.out_proj")
            rows += _norm(f"{there}/{here}_norm", f"{layer}.{name}_layer_norm")
        rows += _dense(f"{there}/fc1", f"{layer}.fc1")
        rows += _dense(f"{there}/fc2", f"{layer}.fc2")
        rows += _norm(f"{there}/final_norm", f"{layer}.final_layer_norm")
    return rows


def _clip() -> list[Row]:
    rows: list[Row] = [
        ("logit_scale", "logit_scale", same),
        *_embed("text/token_embedding", "text_model.embeddings.token_embedding"),
        *_embed("text/position_embedding", "text_model.embeddings.position_embedding"),
        ("vision/class_embedding", "vision_model.embeddings.class_embedding", same),
        ("vision/patch_embedding/kernel", "vision_model.embeddings.patch_embedding.weight", conv),
        *_embed("vision/position_embedding", "vision_model.embeddings.position_embedding"),
        *_norm("text/final_norm", "text_model.final_layer_norm"),
        *_norm("vision/pre_norm", "vision_model.pre_layrnorm"),
        *_norm("vision/post_norm", "vision_model.post_layernorm"),
        ("text_projection/kernel", "text_projection.weight", linear),
        ("visual_projection/kernel", "visual_projection.weight", linear),
    ]
    for tower, heads in (("text", 4), ("vision", 6)):
        layer, there = f"{tower}_model.encoder.layers.{{i}}", f"{tower}/layers/{{i}}"
        for name, letter in (("query", "q"), ("key", "k"), ("value", "v")):
            source = f"{layer}.self_attn.{letter}_proj"
            rows.append((f"{there}/attn/{name}/kernel", f"{source}.weight", heads_in(heads)))
            rows.append((f"{there}/attn/{name}/bias", f"{source}.bias", heads_bias(heads)))
        rows.append((f"{there}/attn/out/kernel", f"{layer}.self_attn.out_proj.weight", heads_out(heads)))
        rows.append((f"{there}/attn/out/bias", f"{layer}.self_attn.out_proj.bias", same))
        rows += _norm(f"{there}/ln1", f"{layer}.layer_norm1")
        rows += _norm(f"{there}/ln2", f"{layer}.layer_norm2")
        rows += _dense(f"{there}/mlp/fc1", f"{layer}.mlp.fc1")
        rows += _dense(f"{there}/mlp/fc2", f"{layer}.mlp.fc2")
    return rows


def _convnext() -> list[Row]:
    block, there = "convnext.encoder.stages.{i}.layers.{j}", "stages/{i}/blocks/{j}"
    down = "convnext.encoder.stages.{i}.downsampling_layer"
    return [
        *_conv("stem/conv", "convnext.embeddings.patch_embeddings"),
        *_norm("stem/norm", "convnext.embeddings.layernorm"),
        (f"{there}/layer_scale", f"{block}.layer_scale_parameter", same),
        *_conv(f"{there}/dwconv", f"{block}.dwconv"),
        *_norm(f"{there}/norm", f"{block}.layernorm"),
        *_dense(f"{there}/pwconv1", f"{block}.pwconv1"),
        *_dense(f"{there}/pwconv2", f"{block}.pwconv2"),
        *_norm("stages/{i}/downsample/norm", f"{down}.0"),
        *_conv("stages/{i}/downsample/conv", f"{down}.1"),
        *_norm("norm", "convnext.layernorm"),
        *_dense("head", "classifier"),
    ]


def _gemma() -> list[Row]:
    layer = "model.layers.{i}"
    return [
        *_embed("token_embedder", "model.embed_tokens"),
        ("decoder/layers/self_attention/query/kernel", f"{layer}.self_attn.q_proj.weight", heads_in(16)),
        ("decoder/layers/self_attention/key/kernel", f"{layer}.self_attn.k_proj.weight", heads_in(16)),
        ("decoder/layers/self_attention/value/kernel", f"{layer}.self_attn.v_proj.weight", heads_in(16)),
        ("decoder/layers/self_attention/out/kernel", f"{layer}.self_attn.o_proj.weight", heads_out(16)),
        ("decoder/layers/mlp/wi_0/kernel", f"{layer}.mlp.gate_proj.weight", linear),
        ("decoder/layers/mlp/wi_1/kernel", f"{layer}.mlp.up_proj.weight", linear),
        ("decoder/layers/mlp/wo/kernel", f"{layer}.mlp.down_proj.weight", linear),
        ("decoder/layers/pre_self_attention_norm/scale", f"{layer}.input_layernorm.weight", same),
        ("decoder/layers/pre_ffw_norm/scale", f"{layer}.post_attention_layernorm.weight", same),
        ("decoder/decoder_norm/scale", "model.norm.weight", same),
    ]


def _qwen() -> list[Row]:
    layer = "model.layers.{i}"
    rows: list[Row] = [
        *_embed("embed", "model.embed_tokens"),
        ("layers/attn/o/kernel", f"{layer}.self_attn.o_proj.weight", heads_out(14)),
        ("layers/mlp/gate/kernel", f"{layer}.mlp.gate_proj.weight", linear),
        ("layers/mlp/up/kernel", f"{layer}.mlp.up_proj.weight", linear),
        ("layers/mlp/down/kernel", f"{layer}.mlp.down_proj.weight", linear),
        ("layers/input_norm/scale", f"{layer}.input_layernorm.weight", same),
        ("layers/post_attention_norm/scale", f"{layer}.post_attention_layernorm.weight", same),
        ("norm/scale", "model.norm.weight", same),
    ]
    for letter, heads in (("q", 14), ("k", 2), ("v", 2)):
        source = f"{layer}.self_attn.{letter}_proj"
        rows.append((f"layers/attn/{letter}/kernel", f"{source}.weight", heads_in(heads)))
        rows.append((f"layers/attn/{letter}/bias", f"{source}.bias", heads_bias(heads)))
    return rows


def _wav2vec2() -> list[Row]:
    layer, there = "wav2vec2.encoder.layers.{i}", "encoder/layers/{i}"
    extractor, pos = "wav2vec2.feature_extractor.conv_layers", "wav2vec2.encoder.pos_conv_embed.conv"
    rows: list[Row] = [
        ("masked_spec_embed", "wav2vec2.masked_spec_embed", same),
        ("feature_extractor/conv_layers/{i}/conv/kernel", f"{extractor}.{{i}}.conv.weight", conv),
        *_norm("feature_extractor/conv_layers/0/norm", f"{extractor}.0.layer_norm"),
        *_norm("feature_projection/norm", "wav2vec2.feature_projection.layer_norm"),
        *_dense("feature_projection/projection", "wav2vec2.feature_projection.projection"),
        ("encoder/pos_conv/bias", f"{pos}.bias", same),
        ("encoder/pos_conv/weight_g", f"{pos}.parametrizations.weight.original0", conv),
        ("encoder/pos_conv/weight_v", f"{pos}.parametrizations.weight.original1", conv),
        *_norm("encoder/norm", "wav2vec2.encoder.layer_norm"),
        *_norm(f"{there}/norm", f"{layer}.layer_norm"),
        *_dense(f"{there}/feed_forward/up", f"{layer}.feed_forward.intermediate_dense"),
        *_dense(f"{there}/feed_forward/down", f"{layer}.feed_forward.output_dense"),
        *_norm(f"{there}/final_norm", f"{layer}.final_layer_norm"),
        *_dense("lm_head", "lm_head"),
    ]
    for name, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out")):
        rows += _dense(f"{there}/attention/{name}", f"{layer}.attention.{letter}_proj")
    return rows


_TABLES: dict[str, Callable[[], list[Row]]] = {
    "bart-base": _bart,
    "bert-base": _bert,
    "clip-vit-base-patch32": _clip,
    "convnext-tiny": _convnext,
    "gemma-2b-like": _gemma,
    "qwen2-like": _qwen,
    "wav2vec2-base": _wav2vec2,
}


@cache
def _made(model: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, str]]:
    rng = np.random.default_rng(MODELS.index(model))
    source = {
        name: rng.standard_normal(math.prod(shape), np.float32).reshape(shape)
        for name, shape in tensors(model).items()
    }
    expected = converted(_TABLES[model](), source)
    described = json.loads((DATA / f"{model}.json").read_text())
    ties = described["tied"] or {}
    tied = {name: ties.get(name, "model.shared.weight") for name in described["not_stored"]}
    return source, expected, tied


def converted(rows: list[Row], source: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a table makes of a source: each destination leaf's value, under its printed name.

    Every tensor of the source must be used exactly once: a table with a hole would make tests lie.
    """
    expected: dict[str, np.ndarray] = {}
    used: list[str] = []
    for destination, template, change in rows:
        groups: dict[str, list[tuple[tuple[int, ...], np.ndarray]]] = {}
        pattern = re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>[0-9]+)", re.escape(template)))
        for name, array in source.items():
            found = pattern.fullmatch(name)
            if found:
                used.append(name)
                captures = found.groupdict()
                index = tuple(int(captures[key]) for key in captures if f"{{{key}}}" not in destination)
                groups.setdefault(destination.format(**captures), []).append((index, change(array)))
        assert groups, template
        for name, members in groups.items():
            arrays = [array for _, array in sorted(members, key=lambda member: member[0])]
            counts = [len(set(run)) for run in zip(*(index for index, _ in members), strict=True)]
            expected[name] = np.stack(arrays).reshape((*counts, *arrays[0].shape))
    assert sorted(used) == sorted(source), set(source) ^ set(used)
    return {name: np.array(array, order="C") for name, array in expected.items()}
