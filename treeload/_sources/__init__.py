"""Where values come from.

source     the seam that every format and every user fills
separated  joined names split
memory     a tree in memory
part       From, a part of a source grafted somewhere
"""
