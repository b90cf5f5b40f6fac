"""Scores of predictions against gold, each with a 95% bootstrap interval, in percent points."""
