"""What can be wrong, what is forgiven, what to write to go on.

finding  one disagreement, as data
policy   what is forgiven, by kind and by name
remedy   the words and the code to go on
"""
