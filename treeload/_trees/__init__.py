"""Any tree as named slots, and back.

collector  Python's garbage collector, kept quiet while very many objects are made
flax       its classes, where somebody has imported it
names      those of a tree's slots, written out when somebody asks
tree       the slots, as columns
keyless    names where JAX has only numbers
hidden     arrays inside of what never loads
nodes      how each type of node opens
walk       from a tree to its slots
seen       by which a tree is known again
rebuild    from slots to a tree
marks      a mark for each array, as optax sees the tree
"""
