"""The two loops: training on demonstrations or recordings (`train`), fine-tuning by rollouts (`improve`).

In comes a config; out goes a run folder with checkpoints, metrics and an evaluation.
"""
