"""Serving: many prompts on one frozen model, their requests in one batch."""
