"""The worlds: simulated tables, cameras and tasks that an instruction decides.

Importing this package makes their ids (`llamarm/PickPlace-v0`, ...) known to gymnasium and imports no simulator.
"""

from envs.registration import register_envs

register_envs()
