"""Number formats, and arithmetic over batches in parts."""
