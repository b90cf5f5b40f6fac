"""All export formats by name. A new one is a file beside this and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.config.registry import Registry

if TYPE_CHECKING:
    from foreword.export.base import Format

EXPORTS: Registry[Format] = Registry(
    "export format",
    {
        "llama.cpp": "foreword.export.llama_cpp:LlamaCpp",
        "mlx": "foreword.export.mlx:Mlx",
        "onnx": "foreword.export.onnx:Onnx",
        "peft": "foreword.export.peft:Peft",
        "text": "foreword.export.text:Text",
        "vllm": "foreword.export.vllm:VLLM",
        "without-texts": "foreword.export.without_texts:WithoutTexts",
    },
)
