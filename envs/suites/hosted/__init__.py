"""Worlds whose simulator needs an interpreter of its own, because its packages conflict with ours.

    our process                          host (imports the suite once)    a world's process
    HostedWorld, Subprocesses  starts -> forks, then waits  ------------> HostedSimulation answers requests
    closes the life socket, or dies   -> kills its forks, exits

Both interpreters import this package: interpreter.py, subprocesses.py, world.py and ready.py serve ours; host.py,
simulation.py and what renders there the other; frames.py and quality.py both. A suite adds a subclass of HostedWorld
and one of StepwiseSimulation; FunctionWorld and FunctionSimulation do it for any MODULE:FUNCTION of a user.

What of ours runs in the other interpreter needs Python 3.10, numpy and gymnasium, nothing else.
"""
