"""Rows of data: reading, recognising, sampling."""
