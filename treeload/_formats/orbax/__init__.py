"""Orbax checkpoints, read as they lie in their files, through TensorStore or by Orbax; written through Orbax.

source       the leaves
layout       which directory is meant, and what its metadata says
early        what stood in the metadata's place before there was any
btree        where the bytes of each key of an OCDBT store lie
chunks       how an array is cut, checked before TensorStore sees it
direct       which arrays are one chunk, and need no TensorStore
arrays       one of its arrays, from its header to where it is asked for
ways         which way each leaf is read
tensors      arrays through TensorStore
restored     leaves that Orbax itself restores
record       what treeload keeps beside the arrays
storable     what a checkpoint can hold, and all that it cannot
overwritten  what a save may replace
apart        the digests of leaves of which each process has a part
quiet        what a failed save need not print
later        an array that is made when it is written
leaves       all leaves of a save at once, as Orbax's handler of them
write        a checkpoint, complete or not there at all
"""
