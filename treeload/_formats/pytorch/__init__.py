"""PyTorch's files, read without PyTorch: nothing that their pickles name is ever called.

source     which files, and their leaves
zipped     the container of PyTorch 1.6 and later: an archive
legacy     the one before: pickles, then storages
container  what both give
unpickle   a pickle as what it describes
known      the globals that mean something, and what each describes
described  what a pickle may describe
leaves     what is described, as named leaves
"""
