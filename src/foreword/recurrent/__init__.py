"""Recurrent language models made of a text file."""
