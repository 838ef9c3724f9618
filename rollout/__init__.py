"""Rollouts: a policy acts in worlds, and what happened is kept."""
