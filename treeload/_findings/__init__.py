"""What can be wrong, what is forgiven, what to write to go on.

kinds      the one table: every kind of finding, its verdicts, how it is said
remedy     the ways to go on: words, and code that runs as it stands
finding    one disagreement, as data
policy     what is forgiven, by kind and by name
portable   findings that cross to another process
explained  the page of each kind, which users read; the pages are in ``pages/``
"""
