"""Rows through templates to token ids."""
