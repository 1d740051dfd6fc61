"""Both sides, by name, under rules and a policy: what happens to each leaf. Pure: no array is read.

match        the order in which a load is decided
parts        what users give as sources, opened
versions     which steps of a history each has to take
boxes        segments that a box made are no part of a name
positions    sources without names, and nodes without keys
inside       what lies in a part, the steps of a history taken
offers       what the sources give, under the destination's names
agree        the fast pass: what simply agrees
sides        both sides, and the questions asked of them
follow_ties  leaves that a Tie feeds
apart        leaves of one side of which the other has nothing
ledger       the lines, written once
slots        the destination's side
fit          whether one value can go into one leaf
rivals       several values for one leaf
leftovers    the source's side
idle         what the user wrote and nothing came of, and what was meant
regraft      what was meant by a From that names nothing
whole        what can only be said at the end
"""
