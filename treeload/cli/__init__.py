"""The ``treeload`` command: arguments in, sentences and an exit status out.

Owns what a terminal sees and nothing that a library user could want. The status is 0 where all is well, 1
where there is something to look at (findings, differences, damage), 2 where a command was not understood or
something could not be read. One file a command; nothing heavy is imported before one runs, so that
``--help`` is there at once.

app         the commands together, and errors in one sentence
say         text for a terminal or a pipe, and JSON
given       models to load into, and files of rules
policies    policies as files, read and written
inspect     what a checkpoint holds
plan        what would load
explain     what a kind of finding means, and how to go on
diff        what differs
verify      whether bytes are those that were written
digest      by which that can be told later
average     several into one
convert     from one format to another
demo        the whole story
env         versions, for a report of a fault
manual      the page of the documentation that says what each does
"""

from treeload.cli.app import main as main
