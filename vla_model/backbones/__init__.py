"""Decoders: the LLaMA families and Grok-1, from scratch, of published sizes, or with pretrained weights."""
