"""Pages for a browser: one file each, that fetches nothing, with a tree to search. Decides nothing.

leaf       a leaf as a page knows it, and many of them as data for the script
modules    what becomes of each top-level module
fill       the files below, filled in
plan       the page of a plan
inventory  the page of what a source holds
diff       the page of what two checkpoints differ in

What a page is made of lies beside them as it is. Jinja2 fills it in and escapes every text; it is imported
when a page is made. ``base.html`` is every page; ``plan.html``, ``inventory.html`` and ``diff.html`` are what
is said above the leaves, ``parts.html`` what they share, ``page.css`` the looks. The script is ``leaves.js``
(the tree, its sums, what is asked for), ``tree.js`` (what is unfolded of it), ``treemap.js`` and ``page.js``
(buttons, keys). It writes texts as texts alone, and the page allows no other script, by its digest.
"""
