"""Decoders: the LLaMA families and Grok-1, from scratch, from published sizes, or with weights from disk."""
