"""What is known of one leaf by itself, and what may be done with its value.

spec       shape and dtype, and what kind of slot it is
casts      which casts lose what
number     a Python number as a 0-d array
values     is it zero, are two equal, does a cast overflow
placement  to host or device, where the destination wants it
selection  which part of a tree is meant
"""
