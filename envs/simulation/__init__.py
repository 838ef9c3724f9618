"""N simulations of one MuJoCo model, on CPU threads or on a GPU, and what draws their frames.

In come a model and joint targets; out go states and frames.
"""
