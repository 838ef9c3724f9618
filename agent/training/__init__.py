"""The two loops: from demonstrations or recordings (`train`), and from own practice (`improve`).

In comes a config; out goes a run folder with checkpoints, metrics and an evaluation.
"""
