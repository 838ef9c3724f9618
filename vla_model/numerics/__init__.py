"""Number formats, arithmetic over batches in parts, and correlated noise."""
