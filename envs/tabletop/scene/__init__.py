"""The scene: one MuJoCo model with everything that any task needs, its ids, and where things appear in its cameras.

Knows nothing of episodes: what lies where and in which colour is written into the model's fields by `episodes/placing`.
"""
