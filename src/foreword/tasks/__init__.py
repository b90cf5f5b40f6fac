"""Tasks: rows of data to examples, and a model's scores to answers."""
