"""Methods: trainable parameters that yield an injection, one file each."""
