"""The live page: start, watch, disturb, stop, take over and record drives in a browser."""
