"""The attention function, and how packed rows and shared prefixes go through it."""
