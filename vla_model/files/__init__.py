"""A policy on disk: folders that appear whole or not at all, checked weights, adapters."""
