"""Ray workers that collect episodes beside each other, and are replaced when they die.

In come specs; out go the same trajectories with any number of workers.
"""
