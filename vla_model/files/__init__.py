"""Atomic writes of files and folders, tensors with checksums, and a policy's deployment."""
