"""The artefact: a tuned prompt, and the file that it is kept in."""
