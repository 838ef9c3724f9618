"""Number formats, memory, and arithmetic over batches in parts."""
