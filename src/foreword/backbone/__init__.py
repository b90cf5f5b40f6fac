"""Frozen models: sources, the attention function, and what runs them."""
