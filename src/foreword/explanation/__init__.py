"""What a prompt has learned: importance, attention, descriptions, attributions, pruning."""
