"""Rollouts: a policy acts in worlds, and the episodes are recorded as trajectories and datasets."""
