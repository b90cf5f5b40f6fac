"""The search for the best settings of a prompt: a space, a study, and its trials."""
