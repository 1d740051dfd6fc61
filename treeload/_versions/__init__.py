"""How a model changed, and how what was saved before is read today. Pure: names, specs and rules alone.

version   one change, and all of them in order
migrate   what a source holds, after the changes that it has not seen
forgive   what a change's policy forgives, followed to the names of today
"""
