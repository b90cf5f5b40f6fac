"""Configurations: frozen dataclasses of settings, and registries of them by name."""
