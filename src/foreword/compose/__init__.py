"""Compose: prompts out of prompts, prompts that answer together, and a library of them."""
