"""What names and shapes tell about two sides that do not match: the evidence behind ``plan.suggest()``.

tokens       what words mean
templates    names without their indices, gathered into modules
limits       how much is looked at
parts        a side that is a subtree of the other
changes      which shapes can become which
layouts      the judge: which of them is meant
relayouts    the same for leaves with indices
evidence     what speaks for a pair
pairing      which module feeds which, and how sure
reasons      why a rule, in words
proposals    rules that read well
fused        several modules in one
unsettled    what stays open, in words
sizes        what grew
suggestions  the result
suggest      rules for what did not match, put together
diagnosis    what two sides differ in as a whole, put together
"""
