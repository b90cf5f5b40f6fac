"""Prompts made anew on another model, from what their files say."""
