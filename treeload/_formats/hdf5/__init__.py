"""HDF5 files, as Keras and others write them: ``.weights.h5``, ``.h5``, and ``.keras`` around one.

source    which bytes are the file, and its leaves
pages     a stream that keeps what it has read
datasets  what is in it, checked before anything is believed; the one place that imports h5py
"""
