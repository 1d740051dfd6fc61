"""What treeload says: plans, inventories and differences, as text and HTML. Decides nothing.

page       lines: what may stand in one, where it breaks
groups     names that say the same thing, as one
problems   findings as a reader wants them
ways       how to go on from them, and for which names
trust      whose bytes nothing vouches for
leaves     what happens to each leaf, in rows
verdict    how much loads, at a glance
going_on   what repairs it, said before anything is forgiven
text       a plan, and an error, for a terminal
html       a plan for a notebook
browser    pages: a plan, an inventory and a diff in one file each
inventory  what a source holds
outline    the same as a tree, with sums
origins    where its leaves came from
renamed    whether two checkpoints are one under other names
diff       what two checkpoints differ in
locked     what a plan and its lock differ in
"""
