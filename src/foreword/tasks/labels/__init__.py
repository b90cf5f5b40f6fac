"""Tasks whose answers are labels."""
