"""What treeload says: plans, inventories and differences, as text and HTML."""
