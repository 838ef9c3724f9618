"""Heads on the decoder's hidden states: actions, values, object positions and future states."""
