"""Pretraining of recurrent language models on a text file."""
