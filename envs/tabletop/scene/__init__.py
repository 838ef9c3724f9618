"""The scene: one MuJoCo model with everything that any task needs, its ids, and image coordinates of things.

It does not depend on episodes: `episodes/placing` writes their positions and colours to the model's fields.
"""
