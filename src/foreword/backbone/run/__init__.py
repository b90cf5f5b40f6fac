"""Running a model: inputs, layers and scores, for one stack and for two."""
