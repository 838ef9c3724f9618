"""N simulations of one MuJoCo model, on CPU threads or on a GPU, and the rendering of their frames.

Inputs: a model and joint targets. Outputs: states and frames.
"""
