"""What ``treeload demo`` runs: pretrained BERT weights restored into a Flax NNX model.

A worked example on top of the public API; nothing in treeload depends on it.
"""

from treeload.demo._bert import Bert, BertConfig, embed
from treeload.demo._hugging_face import POLICY, RULES
from treeload.demo._minilm import find_minilm, wordpiece
from treeload.demo._sentences import QUERY, SENTENCES, TOKEN_IDS, token_ids
from treeload.demo._small import SMALL, words, write_small_bert
from treeload.demo._story import abstract_bert, different_leaves, nearest, tell

__all__ = [
    "POLICY",
    "QUERY",
    "RULES",
    "SENTENCES",
    "SMALL",
    "TOKEN_IDS",
    "Bert",
    "BertConfig",
    "abstract_bert",
    "different_leaves",
    "embed",
    "find_minilm",
    "nearest",
    "tell",
    "token_ids",
    "wordpiece",
    "words",
    "write_small_bert",
]
