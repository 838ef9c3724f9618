"""Worlds of others."""
