"""Words of prompt files that others need to know."""

from __future__ import annotations

SCHEMA = 1
"""The version of the format."""

KEY = "foreword"
"""Where a file's metadata stands in the header of safetensors."""

LARGE = ("demonstrations", "marks", "states")
"""What the data section of a file holds for machines, and people are not shown."""
