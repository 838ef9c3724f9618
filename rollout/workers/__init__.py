"""Ray workers that collect episodes in parallel, and are replaced when they die.

Input: specs. Output: trajectories, the same with any number of workers.
"""
