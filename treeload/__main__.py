"""``python -m treeload``: the command line, where its script is not on the path."""

from treeload.cli import main

if __name__ == "__main__":
    main()
