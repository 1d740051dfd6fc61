"""Flax's msgpack files, read only.

source  the leaves
choice  which files are meant: one, the latest of several steps, or shards with their index
"""
