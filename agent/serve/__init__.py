"""Inference server over a websocket, with the protocols of openpi and vla-eval, and a client of our own."""
