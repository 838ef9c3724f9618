"""Environments: simulated tables, cameras and language-conditioned tasks.

Importing this package registers their ids (`llamarm/PickPlace-v0`, ...) with gymnasium and imports no simulator.
"""

from envs.registration import register_envs

register_envs()
