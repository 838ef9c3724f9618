"""Number formats, means over batches computed in parts, and temporally correlated noise."""
