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
# # Which leaves would load?
#
# A checkpoint with six things wrong: a wrapper around it, a module of another name, kernels the other way
# round, a missing bias, one layer too many, and another dtype. Each is found and mended from what the plan
# says, and no array is read until the end.

# %%
import os
import tempfile

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx
from safetensors.flax import save_file

import treeload
from treeload import BIAS, Policy

# %% [markdown]
# ## The checkpoint
#
# Written by somebody else's code: `model.` in front of every name, `encoder.layer.N` for our `layers/N`,
# kernels stored output first, no biases in `down_proj`, five layers where our model has four, and bfloat16
# instead of float32.

# %%
scratch = tempfile.TemporaryDirectory()  # an empty directory to work in, so that paths below are short
os.chdir(scratch.name)
path = "theirs.safetensors"
rng = np.random.default_rng(0)


def theirs(*shape):
    return jnp.asarray(rng.normal(size=shape).astype(ml_dtypes.bfloat16))


tensors = {"model.embeddings.word_embeddings.weight": theirs(50, 8)}
for layer in range(5):
    prefix = f"model.encoder.layer.{layer}"
    tensors[f"{prefix}.up_proj.weight"] = theirs(16, 8)
    tensors[f"{prefix}.up_proj.bias"] = theirs(16)
    tensors[f"{prefix}.down_proj.weight"] = theirs(8, 16)
save_file(tensors, path)

treeload.inspect(path)

# %% [markdown]
# ## The model
#
# It is abstract: shapes and dtypes, no arrays. Nothing of it is made before there is something to put in.


# %%
class Layer(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.Linear(8, 16, rngs=rngs)
        self.down = nnx.Linear(16, 8, rngs=rngs)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(50, 8, rngs=rngs)
        self.layers = nnx.List([Layer(rngs) for _ in range(4)])


model = nnx.eval_shape(lambda: Model(nnx.Rngs(0)))
plan = treeload.plan(model, path)
plan

# %% [markdown]
# Nothing matches by name, and the report says so for the whole before it says it for each leaf. What would
# the rules look like?

# %%
rules = plan.suggest()
print(rules)

# %% [markdown]
# These are ordinary rules, to be read before they are used: each says why it is there and how sure it is.
# Three of the six are mended by them: the wrapper, the names, and the kernels that are the other way round.

# %%
plan = treeload.plan(model, path, rules=rules)
plan

# %% [markdown]
# What is left is no matter of names. The biases that are missing were left out because they are zero: we
# know the code that wrote the file. So absent means zero, for biases and for nothing else.

# %%
policy = Policy(absent_is_zero=BIAS)
plan = treeload.plan(model, path, rules=rules, policy=policy)
print(plan.summary())
for finding in plan.errors:
    print(finding)

# %% [markdown]
# The fifth layer has no place in our model, and that is what we want. Only that layer is let go: an
# `unexpected` leaf anywhere else is still an error.

# %%
policy = Policy(absent_is_zero=BIAS, unexpected={"layers/4/**": "ignore"})
plan = treeload.plan(model, path, rules=rules, policy=policy)
plan

# %% [markdown]
# bfloat16 becomes float32 by the default casting, which the plan shows leaf by leaf. Where that should not
# happen, `casting` says so:

# %%
strict = Policy(absent_is_zero=BIAS, unexpected={"layers/4/**": "ignore"}, casting="no")
print(treeload.plan(model, path, rules=rules, policy=strict).summary())

# %% [markdown]
# ## The load
#
# The other way round, a bias of the layer that is let go is absent from our model: under `absent_is_zero` it
# would have to be zero. That is a question of values, and the plan says that it is still to be checked.

# %%
print([str(name) for name in plan.pending])
checked = plan.verify()
for finding in checked.errors:
    print(finding)

# %% [markdown]
# So the policy was too wide: absent is zero for the biases that we know of, and for no others.

# %%
policy = Policy(absent_is_zero=("layers/*/down/bias",), unexpected={"layers/4/**": "ignore"})
plan = treeload.plan(model, path, rules=rules, policy=policy).require(coverage=0.97, kept=())
model = plan.load()

print(plan.summary())
print(np.abs(model.layers[3].down.bias[...]).max(), model.layers[0].up.kernel.dtype)
same = model.layers[2].up.kernel[...] == tensors["model.encoder.layer.2.up_proj.weight"].astype(jnp.float32).T
print(bool(same.all()))

# %%
os.chdir("/")
scratch.cleanup()
