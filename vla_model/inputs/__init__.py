"""Model inputs: observations and instructions as tensors, and the statistics that normalise them."""
