"""Camera frames as image tokens."""
