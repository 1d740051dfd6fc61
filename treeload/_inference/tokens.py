"""What the words in a name say about a leaf: ``q_proj``, ``query`` and ``wq`` are one concept.

Owns the vocabulary: how a key is cut into words, which words mean the same, which exclude each other, and
what kind of parameter a last key is. Refuses to own shapes, and the decision whether two leaves belong
together (``pairing``). A word it does not know stands for itself, so no model has to be listed here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]{1,9}")


# Phrase -> concepts. The longest phrase at each place wins; words are lower case and without underscores.
_CONCEPTS: dict[str, str] = {
    "norm": (
        "norm|layer norm|layernorm|layrnorm|ln|rms norm|rmsnorm|batch norm|batchnorm|bn|group norm|"
        "groupnorm|gn"
    ),
    "attention": (
        "attention|attn|att|mha|multi head attention|multi head dot product attention|multihead attention"
    ),
    "self attention": "self attn|self attention|selfattention|self att|sa",
    "cross attention": (
        "cross attn|cross attention|crossattention|encoder attn|encoder attention|"
        "encoder decoder attention|enc dec attention|src attn"
    ),
    "query": "q|query|wq|q proj|query proj|to q|q lin|linear q|q einsum",
    "key": "k|key|wk|k proj|key proj|to k|k lin|linear k",
    "value": "v|value|wv|v proj|value proj|to v|v lin|linear v",
    "qkv": "qkv|c attn|in proj|query key value|qkv proj|wqkv|qkv einsum",
    "kv": "kv|kv proj|key value|to kv|wkv",
    "out": "o|out|o proj|out proj|to out|out lin|linear out|attn vec einsum",
    "up": "up|up proj|fc 1|fc in|c fc|wi|intermediate|dense h to 4 h|linear 1|lin 1|pwconv 1",
    "down": "down|down proj|fc 2|fc out|w 2|dense 4 h to h|linear 2|lin 2|pwconv 2",
    "gate": "gate|gate proj|gating",
    "gate up": "gate up|gate up proj|fc 1 gate up",
    "up by_number": "wi 1|w 3",
    "gate by_number": "wi 0|w 1",
    "mlp": "mlp|ffn|ffw|ff|feed forward|feedforward|moe|block sparse moe",
    "embed": "embedding|embeddings|embed|emb|embedder",
    "word embed": (
        "word embedding|word embeddings|word embed|token embedding|token embeddings|embed tokens|"
        "tok embeddings|tok embed|token embed|token embedder|wte|shared|input embedding|"
        "shared embedding|vocab embedding"
    ),
    "pos embed": (
        "position embedding|position embeddings|positional embedding|pos embedding|pos embed|"
        "posembed|wpe|embed positions|embed position|position embed"
    ),
    "type embed": (
        "token type embeddings|token type embedding|token type embed|type embed|segment embedding|"
        "segment embeddings|type embedding"
    ),
    "pos": "position|positions|positional|pos",
    "type": "token type|segment|type",
    "word": "word|words|token|tokens|tok|vocab",
    "head": "head|lm head|classifier|score|logits dense",
    "layer": "layer|layers|h|block|blocks|encoderblock|decoderblock|resblocks|encoder block|decoder block",
    "encoder": "encoder|enc",
    "decoder": "decoder|dec",
    "vision": "vision|visual|image|img",
    "text": "text|textual|txt",
    "proj": "proj|projection",
    "dense": "dense|linear|lin",
    "conv": "conv|convolution|conv2d|conv1d",
    "": (
        "model|params|module|transformer|state dict|variables|batch stats|base model|backbone|"
        "orig mod|value params|parametrizations"
    ),
}


_PHRASES: dict[tuple[str, ...], tuple[str, ...]] = {
    tuple(phrase.split()): tuple(concept.split())
    for concept, phrases in _CONCEPTS.items()
    for phrase in phrases.split("|")
}


_LONGEST = max(map(len, _PHRASES))


# Concepts of which a leaf can be only one. ``HARD`` ones are never overruled by other evidence.
HARD = (frozenset({"query", "key", "value", "qkv", "kv", "out"}), frozenset({"word", "pos", "type"}))


EXCLUSIVE = (
    *HARD,
    frozenset({"up", "down", "gate"}),
    frozenset({"encoder", "decoder"}),
    frozenset({"vision", "text"}),
    frozenset({"self", "cross"}),
    frozenset({"attention", "mlp"}),
    frozenset({"pre", "post"}),
    frozenset({"norm", "conv"}),
    frozenset({"norm", "dense"}),
    frozenset({"first", "second"}),
)


_EXCLUDING = frozenset().union(*EXCLUSIVE)


WEIGHT = {
    **dict.fromkeys(
        ("query", "key", "value", "qkv", "kv", "out", "up", "down", "gate", "pos", "word", "type"), 2.0
    ),
    **dict.fromkeys(("encoder", "decoder", "vision", "text", "cross"), 1.5),
    **dict.fromkeys(("layer", "dense", "conv", "proj"), 0.4),
}
"""How much a shared concept counts; a word that is not listed counts 1."""


# What a head is for, as far as one word says it; a head of one kind is never that of another.
_HEADS = {
    **dict.fromkeys(("lm", "mlm", "prediction", "predictions", "logits", "generator"), "words"),
    **dict.fromkeys(("classifier", "classification", "score"), "classes"),
    **dict.fromkeys(("pooler", "pooling"), "pooling"),
    **dict.fromkeys(("relationship", "nsp", "sop"), "sentences"),
    **dict.fromkeys(("qa", "span"), "spans"),
}
_ANY_HEAD = {"head", "heads", "cls"}


@lru_cache(maxsize=65536)
def heads(path: tuple[str, ...]) -> frozenset[str]:
    """What heads a path names: ``words``, ``classes`` …, ``any`` for one that could be each.

    Examples:
        >>> [sorted(heads(path)) for path in (("cls", "predictions"), ("pooler", "dense"), ("encoder",))]
        [['words'], ['pooling'], []]
    """
    words = {word.lower() for key in path for word in _WORDS.findall(key)}
    known = {_HEADS[word] for word in words if word in _HEADS}
    return frozenset(known or ({"any"} if words & _ANY_HEAD else ()))


def heads_apart(these: Sequence[str], those: Sequence[str]) -> bool:
    """Whether two paths are of heads for different ends, or one of a head and the other of none."""
    ours, theirs = heads(tuple(these)), heads(tuple(those))
    if "any" in ours | theirs:
        return not (ours and theirs)
    return bool(ours | theirs) and not ours & theirs


# What a last key says: the kind of parameter. Leaves of one module are told apart by it.
_KINDS = {
    **dict.fromkeys(
        ("weight", "kernel", "w", "weights", "embedding", "scale", "gamma", "embeddings", "table"), "weight"
    ),
    **dict.fromkeys(("bias", "b", "beta", "offset"), "bias"),
    **dict.fromkeys(("running_mean", "mean", "moving_mean"), "mean"),
    **dict.fromkeys(("running_var", "var", "moving_variance", "variance"), "var"),
    **dict.fromkeys(("weight_g", "original0"), "magnitude"),
    **dict.fromkeys(("weight_v", "original1"), "direction"),
}


_ENDING = re.compile(r"(.+)_(weight|kernel|bias|embedding|scale)$")


@lru_cache(maxsize=65536)
def concepts(key: str) -> tuple[str, ...]:
    """The concepts of one key, in order; a number belongs to the word before it.

    Examples:
        >>> concepts("self_attn_layer_norm"), concepts("q_proj"), concepts("ln_2"), concepts("wte")
        (('self', 'attention', 'norm'), ('query',), ('norm', 'norm#2'), ('word', 'embed'))
    """
    words = [word.lower() for word in _WORDS.findall(key)]
    found: list[str] = []
    at = 0
    while at < len(words):
        for length in range(min(_LONGEST, len(words) - at), 0, -1):
            phrase = tuple(words[at : at + length])
            if phrase in _PHRASES:
                found += _PHRASES[phrase]
                at += length
                break
        else:
            word = words[at]
            found.append(
                f"{found[-1].split('#')[0] if found else ''}#{int(word)}" if word.isdigit() else word
            )
            at += 1
    return tuple(found)


@lru_cache(maxsize=65536)
def kind(key: str) -> tuple[str, str]:
    """What kind of parameter a last key is, and what of the key is the name of its module.

    Examples:
        >>> kind("kernel"), kind("in_proj_bias"), kind("class_embedding"), kind("logit_scale")
        (('weight', ''), ('bias', 'in_proj'), ('weight', 'class_embedding'), ('weight', 'logit_scale'))
    """
    known = _KINDS.get(key.lower())
    if known:
        return known, ""
    ending = _ENDING.match(key)
    if ending is None:
        return "weight", key
    # A ``pos_embedding`` is an embedding called pos; an ``in_proj_weight`` is the weight of in_proj.
    return _KINDS[ending[2]], ending[1] if ending[2] in ("weight", "kernel", "bias") else key


def conflict(
    these: frozenset[str], those: frozenset[str], families: Sequence[frozenset[str]] = EXCLUSIVE
) -> bool:
    """Whether two sets of concepts exclude each other: a query is no key, an encoder no decoder."""
    if these.isdisjoint(_EXCLUDING) or those.isdisjoint(_EXCLUDING):
        return False
    return any(
        these & family and those & family and not these & those & family
        for family in families
    )  # fmt: skip
