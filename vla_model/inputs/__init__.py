"""What a model reads: observations and instructions as tensors, and the statistics that scale them."""
