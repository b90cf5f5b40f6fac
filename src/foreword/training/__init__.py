"""Tuning: rows, a task and a method to a prompt."""
