"""Whole checkpoints: looked at, compared, averaged, resumed, exported.

view         several sources, through rules, as one
compare      the difference of two
one_model    whether several are of one model
average      their mean
resume       where a training goes on
initializer  one leaf as an initialiser
left_out     what a save cannot store
history      how a model changed: History
golden       a model's names and shapes in a file, and the change that the file asks for
provenance   where the leaves of what is saved came from
export       back into the source's layout
verify       whether one is what was written
stats        what its values are like
undo         the way back down an expression
"""
