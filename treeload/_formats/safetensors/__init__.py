"""safetensors files, read and written.

source  which files, and their leaves
header  what a file says of its tensors, checked
write   named arrays to one file
"""
