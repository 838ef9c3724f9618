"""The arm: what it is made of, and the joint targets that an action asks of it."""
