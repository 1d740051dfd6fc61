"""Decisions carried out: all of them or none.

load       the order that makes it all or nothing
initial    what makes leaves that are kept and abstract
checks     of values
shardings  where the caller wants the result
gather     source leaves read
canvas     several joined, each written into its place
jitted     made on the devices that they are spread over
deliver    into their places
overflow   casts that a value does not survive
progress   a bar, or a function that is told
"""
