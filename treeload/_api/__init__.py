"""The verbs of treeload: wiring, no decisions. Each opens sources, walks trees, and hands both to a room.

load         a tree from a source: plan, load, update
save         a tree to a path: save, export
look         what is there: open, inspect, state, names
checkpoints  whole checkpoints: diff, average, resume, initializer
"""
