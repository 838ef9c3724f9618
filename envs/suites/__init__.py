"""Worlds over third-party environments: Meta-World and any gymnasium environment."""
