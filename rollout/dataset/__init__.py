"""LeRobotDataset v3.0 on disk: written, read, checked, cached, and sampled as training batches.

Input: trajectories. Output: datasets that survive a kill, and batches of their rows.
"""
