"""Passes that do no work twice and none on padding."""
