"""Source names and layouts become the destination's.

rule     what a rule is
apply    who takes which leaf
rename   one for one
copy     one for one, and the leaf stays for the rules after it
stack    layers to an axis, and back
split    parts of an axis
tie      fed by what feeds another leaf
combine  several leaves that belong together
"""
