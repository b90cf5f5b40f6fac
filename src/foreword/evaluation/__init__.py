"""Scores of prompts, and methods beside each other."""
