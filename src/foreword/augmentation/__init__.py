"""Augmentation: new rows from few, written by the model."""
