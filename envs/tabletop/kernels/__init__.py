"""The tabletop on Warp: a chunk's control law and judgement as kernels, one thread per world.

What they compute is defined by the code in numpy (`arm/control.py`, `tasks/`, `episodes/reading.py`,
`scene/labels.py`); tests hold them equal to it.
"""
