"""The live page: a person starts drives, watches, disturbs, stops, takes over and records them in a browser."""
