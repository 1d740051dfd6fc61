"""What treeload says: plans and inventories as text and HTML."""
