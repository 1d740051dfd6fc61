"""GGUF files, of llama.cpp: arrays as they lie there, quantised ones as the floats that they stand for.

source  which files, and their leaves
header  what a file says of itself and of its tensors, checked
quants  what quantised bytes stand for; the one place that imports gguf
"""
