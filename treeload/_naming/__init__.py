"""What a leaf is called: names, patterns over them, templates that their captures fill.

name       the tuple of key strings, printed and read back
bounds     how long one may be that comes out of a file
printable  other text that comes from outside
near       which names are nearly a given one
pattern    what a pattern matches
mended     what a pattern that matches nothing was to be
template   what captures are written into
"""
