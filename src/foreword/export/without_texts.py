"""Export: a prompt file of our own, without the texts of rows, to be given away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from foreword.errors import UserError
from foreword.prompt.prompt import Prompt


@dataclass(frozen=True)
class WithoutTexts:
    """A prompt file without the texts of the rows that it was tuned on."""

    suffix: ClassVar[str] = ".safetensors"

    def write(self, prompt: Prompt, path: Path) -> Path:
        """Write the file; raises UserError for a task that answers by such texts."""
        if path.exists():
            raise UserError(f"{path}: already exists; name a new file")
        return prompt.without_texts().save(path)
