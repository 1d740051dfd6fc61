"""What will happen, as data.

entry      a line for each leaf
check      what only values can tell
decisions  all lines, and the questions that they answer
repairs    what would make more of it load, tried
as_dict    all of it as JSON-like data
lock       what of it is written down, to be compared later
"""
