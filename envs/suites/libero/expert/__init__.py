"""LIBERO's scripted expert: from a task's goal and the simulator's state to actions.

`expert.py` plans; `goals.py` chooses the skill; `transfer.py`, `drawers.py`, `hinges.py`, `insertion.py` and
`dragging.py` are the skills; `choice.py`, `grasps.py` and `placement.py` say where, `reach.py` whether the hand
gets there; `motion.py` moves the hand; `view.py` reads the simulation.
"""

from envs.suites.libero.expert.expert import Expert

__all__ = ["Expert"]
