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
# # Fit rules before you download
#
# A checkpoint of 14 GB lies behind a URL, with another library's names. What would load of it into our
# model, and by which rules? A plan asks that of its header alone: some kilobytes. The download comes when
# the answer is right.

# %%
import json
import os
import re
import struct
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jax
import jax.numpy as jnp
from flax import nnx

import treeload
from treeload import Pad, Rename, Transpose

# %% [markdown]
# ## The checkpoint
#
# It stands for one of a hub. The file is as large as it says and takes no room on the disk: a header that
# is true, and a hole where the values are, which reads as zeros.

# %%
scratch = tempfile.TemporaryDirectory()  # an empty directory to work in, so that paths below are short
os.chdir(scratch.name)

WIDTH, KEYS, INNER, LAYERS, WORDS = 4096, 1024, 14336, 32, 32000
shapes = {
    "model.embed_tokens.weight": (WORDS, WIDTH),
    "model.norm.weight": (WIDTH,),
    "lm_head.weight": (WORDS, WIDTH),
}
for layer in range(LAYERS):
    for name, shape in {
        "self_attn.q_proj.weight": (WIDTH, WIDTH),
        "self_attn.k_proj.weight": (KEYS, WIDTH),
        "self_attn.v_proj.weight": (KEYS, WIDTH),
        "self_attn.o_proj.weight": (WIDTH, WIDTH),
        "mlp.gate_proj.weight": (INNER, WIDTH),
        "mlp.up_proj.weight": (INNER, WIDTH),
        "mlp.down_proj.weight": (WIDTH, INNER),
        "input_layernorm.weight": (WIDTH,),
        "post_attention_layernorm.weight": (WIDTH,),
    }.items():
        shapes[f"model.layers.{layer}.{name}"] = shape

header, end = {}, 0
for name, shape in shapes.items():
    start, end = end, end + 2 * jnp.prod(jnp.array(shape)).item()
    header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
text = json.dumps(header).encode()
with open("large.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    file.truncate(8 + len(text) + end)
print(f"{os.path.getsize('large.safetensors') / 1e9:.1f} GB, of which the header is {len(text) / 1e3:.0f} kB")


# %% [markdown]
# A server that gives parts of files, as those of hubs and object stores do, and counts what it sends:


# %%
class Ranges(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sent = 0

    def do_GET(self):
        if self.path != "/large.safetensors":
            self.send_error(404)
            return
        size = os.path.getsize("large.safetensors")
        first, last = map(int, re.match(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        last = min(last, size - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("ETag", '"one"')
        self.end_headers()
        with open("large.safetensors", "rb") as file:
            file.seek(first)
            self.wfile.write(file.read(last + 1 - first))
        Ranges.sent += last + 1 - first

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/large.safetensors"

# %% [markdown]
# ## What is in it

# %%
found = treeload.inspect(url)
print(f"{Ranges.sent / 1e3:.0f} kB were sent")
found

# %% [markdown]
# ## The model
#
# As shapes alone: what would be 14 GB of random numbers is never made.


# %%
class Attention(nnx.Module):
    def __init__(self, rngs):
        def linear(rows, columns):
            return nnx.Linear(rows, columns, use_bias=False, param_dtype=jnp.bfloat16, rngs=rngs)

        self.q, self.k, self.v = linear(WIDTH, WIDTH), linear(WIDTH, KEYS), linear(WIDTH, KEYS)
        self.out = linear(WIDTH, WIDTH)


class Block(nnx.Module):
    def __init__(self, rngs):
        def linear(rows, columns):
            return nnx.Linear(rows, columns, use_bias=False, param_dtype=jnp.bfloat16, rngs=rngs)

        self.before = nnx.RMSNorm(WIDTH, param_dtype=jnp.bfloat16, rngs=rngs)
        self.attention = Attention(rngs)
        self.between = nnx.RMSNorm(WIDTH, param_dtype=jnp.bfloat16, rngs=rngs)
        self.gate, self.up = linear(WIDTH, INNER), linear(WIDTH, INNER)
        self.down = linear(INNER, WIDTH)


class Model(nnx.Module):
    def __init__(self, words, rngs):
        self.embed = nnx.Embed(words, WIDTH, param_dtype=jnp.bfloat16, rngs=rngs)
        self.layers = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.norm = nnx.RMSNorm(WIDTH, param_dtype=jnp.bfloat16, rngs=rngs)
        self.head = nnx.Linear(WIDTH, words, use_bias=False, param_dtype=jnp.bfloat16, rngs=rngs)


model = nnx.eval_shape(lambda: Model(WORDS, nnx.Rngs(0)))
plan = treeload.plan(model, url)
print(plan.summary())

# %% [markdown]
# ## What treeload would write
#
# Rules from names and shapes, with how sure each of them is, and what it leaves to us.

# %%
rules = plan.suggest()
print(rules)

# %% [markdown]
# Most are *certain*: no other reading of names and shapes is possible. Three are *likely*: the two norms
# of a layer are vectors of one size, and which of them comes before the attention is told by names alone;
# and the head could be tied to the embedding elsewhere. One look into the other library's code says that
# `input_layernorm` comes first and that the head is a leaf of its own. So they are ours to stand for:

# %%
for rule, reason in zip(rules, rules.reasons, strict=True):
    if reason.startswith("likely"):
        print(rule, reason, sep="\n    ")

# %%
plan = treeload.plan(model, url, rules=rules).require(coverage=1.0)
print(f"{Ranges.sent / 1e3:.0f} kB were sent")
plan

# %% [markdown]
# All of it would load, and nothing is left over. Still no value was sent.
#
# ## Another model
#
# Ours has room for more words. What is wrong with that is said as soon, and what repairs it:

# %%
larger = nnx.eval_shape(lambda: Model(WORDS + 64, nnx.Rngs(0)))
plan = treeload.plan(larger, url, rules=rules)
for finding in plan.errors:
    print(finding)

# %%
padded = [
    Rename("model/embed_tokens/weight", "embed/embedding", Pad(WORDS + 64)),
    Rename("lm_head/weight", "head/kernel", Transpose(), Pad(WORDS + 64, axis=1)),
]
others = [rule for rule in rules if "embed/" not in repr(rule) and "head/" not in repr(rule)]
plan = treeload.plan(larger, url, rules=[*padded, *others])
print(plan.summary())

# %% [markdown]
# ## Held to it
#
# A lock writes down what would load. A test compares it with the plan of that day, and fails when the
# model, the rules or the names and shapes at the URL have changed: again by the header alone.

# %%
plan.lock("model.lock")
treeload.check_lock(treeload.plan(larger, url, rules=[*padded, *others]), "model.lock")
with open("model.lock") as file:
    print(*file.readlines()[:6], sep="")

# %% [markdown]
# ## The download
#
# A load reads the leaves that it needs, by ranges. To try the way without all 14 GB, load one leaf: of a
# tree that has no other, with a `scope` for which nothing else is left over.

# %%
one = {"norm": {"scale": jax.ShapeDtypeStruct((WIDTH,), jnp.bfloat16)}}
before = Ranges.sent


def told(done, total, name):
    print(f"{name}: {done:,} of {total:,} bytes")


rule = Rename("model/norm/weight", "norm/scale")
loaded = treeload.load(one, url, rules=rule, scope="norm/**", progress=told)
print(loaded["norm"]["scale"].shape, f"{Ranges.sent - before:,} bytes were sent, the header among them")

# %% [markdown]
# The whole would be `plan.load()`, or onto a mesh `plan.load(sharding=...)`, each device its own part of
# each leaf.

# %%
server.shutdown()
server.server_close()
os.chdir("/")
scratch.cleanup()
