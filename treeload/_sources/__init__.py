"""Where values come from.

stamp       at which versions of the code a source was saved
source      the seam that every format and every user fills
format      what a format says of itself
separated   joined names split
memory      a tree in memory
sidecar     digests of what carries none, beside it
options     what From and the verbs have not, and what says the same
part        From, a part of a source grafted somewhere
provenance  where the leaves of a checkpoint came from
given       what is no tree and no source, said before anything else
"""
