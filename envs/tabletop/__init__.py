"""The tabletop suite: one arm, one table, many objects, and instructions that decide what to do with them."""
