"""A BERT sentence encoder in Flax NNX: token ids and a mask in, one unit vector a sentence out.

Owns the model and its configuration, with the attribute names that Flax would give it. Knows nothing
of where its weights come from or what they are called there: that is ``_hugging_face``.

The layers are those of Devlin et al., "BERT" (2018): post-norm, learned positions, exact GELU. The
sentence vector is that of Reimers and Gurevych, "Sentence-BERT" (2019): the mean over the mask,
scaled to unit length.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx


@dataclass(frozen=True)
class BertConfig:
    """The sizes of an encoder; the defaults are those of all-MiniLM-L6-v2."""

    vocab: int = 30522
    hidden: int = 384
    layers: int = 6
    heads: int = 12
    intermediate: int = 1536
    positions: int = 512
    token_types: int = 2
    epsilon: float = 1e-12


class Bert(nnx.Module):
    """An encoder from token ids to one unit vector a sentence.

    Examples:
        >>> model = Bert(BertConfig(vocab=10, hidden=8, layers=1, heads=2, intermediate=16), rngs=nnx.Rngs(0))
        >>> ids = jnp.array([[1, 5, 2], [1, 2, 0]])
        >>> embed(model, ids, ids != 0).shape
        (2, 8)
    """

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.embeddings = Embeddings(config, rngs=rngs)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.layers)])

    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """The last hidden states, ``[batch, length, hidden]``; ``mask`` is true where there is a token."""
        hidden: jax.Array = self.embeddings(ids)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden


class Embeddings(nnx.Module):
    """The sum of word, position and token type, normalised."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.word = nnx.Embed(config.vocab, config.hidden, rngs=rngs)
        self.position = nnx.Embed(config.positions, config.hidden, rngs=rngs)
        self.token_type = nnx.Embed(config.token_types, config.hidden, rngs=rngs)
        self.norm = _layer_norm(config, rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        positions = jnp.arange(ids.shape[-1])
        # Every token is of type 0: there is one sentence in a row.
        total = self.word(ids) + self.position(positions) + self.token_type(jnp.zeros_like(ids))
        normalised: jax.Array = self.norm(total)
        return normalised


class Layer(nnx.Module):
    """Attention, then two dense layers; each is added to its input and normalised."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.attention = Attention(config, rngs=rngs)
        self.intermediate = nnx.Linear(config.hidden, config.intermediate, rngs=rngs)
        self.output = nnx.Linear(config.intermediate, config.hidden, rngs=rngs)
        self.norm = _layer_norm(config, rngs)

    def __call__(self, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        hidden = self.attention(hidden, mask)
        # The exact GELU, by erf: with the tanh approximation, MiniLM's embeddings are off by 2.5e-4.
        raised = jax.nn.gelu(self.intermediate(hidden), approximate=False)
        normalised: jax.Array = self.norm(hidden + self.output(raised))
        return normalised


class Attention(nnx.Module):
    """Self-attention of several heads over the tokens of the mask, added to its input and normalised."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.heads = config.heads
        self.query = nnx.Linear(config.hidden, config.hidden, rngs=rngs)
        self.key = nnx.Linear(config.hidden, config.hidden, rngs=rngs)
        self.value = nnx.Linear(config.hidden, config.hidden, rngs=rngs)
        self.output = nnx.Linear(config.hidden, config.hidden, rngs=rngs)
        self.norm = _layer_norm(config, rngs)

    def __call__(self, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        batch, length, width = hidden.shape

        def split(x: jax.Array) -> jax.Array:
            return x.reshape(batch, length, self.heads, width // self.heads)

        attended = jax.nn.dot_product_attention(
            split(self.query(hidden)),
            split(self.key(hidden)),
            split(self.value(hidden)),
            mask=mask[:, None, None, :].astype(bool),
        )
        normalised: jax.Array = self.norm(hidden + self.output(attended.reshape(hidden.shape)))
        return normalised


def _layer_norm(config: BertConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(config.hidden, epsilon=config.epsilon, rngs=rngs)


@nnx.jit
def embed(model: Bert, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """One vector of length 1 a sentence, ``float32[batch, hidden]``, padding left out."""
    # GPUs and TPUs multiply float32 at lower precision unless told otherwise.
    with jax.default_matmul_precision("highest"):
        hidden: jax.Array = model(ids, mask)
    counted = mask[..., None].astype(hidden.dtype)
    mean = (hidden * counted).sum(axis=1) / counted.sum(axis=1)
    unit: jax.Array = mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)
    return unit
