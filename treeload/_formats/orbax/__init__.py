"""Orbax checkpoints, read through TensorStore and written through Orbax.

source  the leaves
layout  which directory is meant, and what its metadata says
chunks  how an array is cut, checked before TensorStore sees it
record  what treeload keeps beside the arrays
write   a checkpoint, complete or not there at all
"""
