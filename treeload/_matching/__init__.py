"""Both sides, by name, under rules and a policy: what happens to each leaf. Pure: no array is read.

match        the order in which a load is decided
agree        the fast pass
offers       what the sources give, under the destination's names
positions    sources without names
follow_ties  leaves that a Tie feeds
ledger       the tables being filled
slots        the destination's side
fit          whether one value can go into one leaf
rivals       several values for one leaf
leftovers    the source's side
whole        what can only be said at the end
"""
