"""What a model is made of, found by running it: attention sites, layer parts, views."""
