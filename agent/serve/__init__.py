"""A policy behind a websocket, for clients of openpi and of vla-eval, and a client of our own."""
