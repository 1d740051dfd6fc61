"""Checkpoints of TensorFlow, read without TensorFlow: the tensor bundle, ``NAME.index`` and ``NAME.data-*``.

source  which bundle a path means, and its leaves
names   what a tensor's key is called here
bundle  what the index says of each tensor, checked against the data files
table   the index as a sorted table of keys and values
wire    the fields of a protobuf message
"""
