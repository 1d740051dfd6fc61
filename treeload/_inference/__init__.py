"""What names and shapes tell about two sides that do not match: the evidence behind ``plan.suggest()``.

tokens       what words mean
templates    names without their indices, gathered into modules
limits       how much is looked at
joined       names that are one key
parts        a side that is a subtree of the other
changes      which shapes can become which
layouts      the judge: which of them is meant
relayouts    the same for leaves with indices
evidence     what speaks for a pair
series       numbers that count otherwise on the other side
pairing      which module feeds which, and how sure
reasons      why a rule, in words
ties         heads that are an embedding
only_ones    all that there is
proposals    rules that read well
fused        several modules in one
unsettled    what stays open, in words
sizes        what grew
suggestions  the result
suggest      rules for what did not match, put together
diagnosis    what two sides differ in as a whole, put together
"""
