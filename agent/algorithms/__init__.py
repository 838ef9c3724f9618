"""What is learned from a batch, one algorithm a file, with its settings in a file beside it.

In come a model, its outputs and a batch of demonstrations or rollouts; out go a loss and its metrics.
"""
