"""The learner: the gradient of a batch, computed in parts or by a CUDA graph, and the optimiser's step.

In come a batch and a loss; out go updated weights and metrics.
"""
