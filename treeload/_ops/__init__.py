"""Spec to spec, array to array, and back.

op          what an op is
expression  ops put together
layout      Transpose, Reshape
convert     Cast, Apply
resize      Pad, Slice, Resize
several     the ops by which rules join leaves and take them apart
"""
