"""What a BERT checkpoint from Hugging Face calls its leaves, and where each goes in ``Bert``.

Owns the rules and the policy, which are all that treeload has to be told. Holds for every
``BertModel`` in this layout, whatever its size.
"""

from __future__ import annotations

import treeload
from treeload import Rename, Transpose

# PyTorch's linear layers hold [out, in], Flax's hold [in, out]. "{*block}" is "attention" where the
# projection closes the attention, and nothing where it closes the layer.
RULES: tuple[Rename, ...] = (
    Rename("embeddings/{kind}_embeddings/weight", "embeddings/{kind}/embedding"),
    Rename("embeddings/LayerNorm/weight", "embeddings/norm/scale"),
    Rename("embeddings/LayerNorm/bias", "embeddings/norm/bias"),
    Rename(
        "encoder/layer/{i}/attention/self/{part}/weight",
        "layers/{i}/attention/{part}/kernel",
        Transpose(),
    ),
    Rename("encoder/layer/{i}/attention/self/{part}/bias", "layers/{i}/attention/{part}/bias"),
    Rename("encoder/layer/{i}/intermediate/dense/weight", "layers/{i}/intermediate/kernel", Transpose()),
    Rename("encoder/layer/{i}/intermediate/dense/bias", "layers/{i}/intermediate/bias"),
    Rename(
        "encoder/layer/{i}/{*block}/output/dense/weight", "layers/{i}/{*block}/output/kernel", Transpose()
    ),
    Rename("encoder/layer/{i}/{*block}/output/dense/bias", "layers/{i}/{*block}/output/bias"),
    Rename("encoder/layer/{i}/{*block}/output/LayerNorm/weight", "layers/{i}/{*block}/norm/scale"),
    Rename("encoder/layer/{i}/{*block}/output/LayerNorm/bias", "layers/{i}/{*block}/norm/bias"),
)

# The pooler feeds a classifier that sentence embeddings do without; position_ids is 0, 1, 2, … stored.
POLICY = treeload.Policy(unexpected={"pooler/**": "ignore", "embeddings/position_ids": "ignore"})
