"""The sentences that the demo compares, with the token ids that BERT's uncased vocabulary gives them.

The ids stand here so that the demo tells the same story without the ``tokenizers`` library; a test
holds them to what it says. Owns padding too, which is the same for every vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

Tokenise: TypeAlias = Callable[[str], Sequence[int]]

QUERY = "A man is eating food."
SENTENCES = (
    "Someone is having a meal.",
    "A man is riding a horse.",
    "A woman is playing the violin.",
    "This is an offline sentence embedding",
    "Another text to embed, a bit longer than the first one.",
)
TOKEN_IDS: dict[str, tuple[int, ...]] = {
    "A man is eating food.": (101, 1037, 2158, 2003, 5983, 2833, 1012, 102),
    "Someone is having a meal.": (101, 2619, 2003, 2383, 1037, 7954, 1012, 102),
    "A man is riding a horse.": (101, 1037, 2158, 2003, 5559, 1037, 3586, 1012, 102),
    "A woman is playing the violin.": (101, 1037, 2450, 2003, 2652, 1996, 6710, 1012, 102),
    "This is an offline sentence embedding": (
        *(101, 2023, 2003, 2019, 2125, 4179, 6251, 7861, 8270, 4667, 102),
    ),
    "Another text to embed, a bit longer than the first one.": (
        *(101, 2178, 3793, 2000, 7861, 8270, 1010, 1037, 2978, 2936, 2084, 1996, 2034, 2028, 1012, 102),
    ),
}


def token_ids(sentences: Sequence[str], tokenise: Tokenise) -> tuple[jax.Array, jax.Array]:
    """Ids and mask of ``sentences``, ``int32[sentences, longest]`` each, padded with 0 at the end.

    Examples:
        >>> words = {"a": 1, "b": 2}
        >>> ids, mask = token_ids(["a b", "a"], lambda text: [words[word] for word in text.split()])
        >>> ids.tolist(), mask.tolist()
        ([[1, 2], [1, 0]], [[1, 1], [1, 0]])
    """
    rows = [list(tokenise(sentence)) for sentence in sentences]
    longest = max(map(len, rows))
    ids = [row + [0] * (longest - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return jnp.array(ids, jnp.int32), jnp.array(mask, jnp.int32)
