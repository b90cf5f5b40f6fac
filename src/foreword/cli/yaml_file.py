"""YAML as people write it: by the rules of YAML 1.2, with keys that are texts, each of them once.

By YAML 1.1 ``yes`` and ``off`` are truth values, ``12:30`` is 750, ``010`` is 8, ``2024-01-01`` is
a date and ``1e-4`` is a text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from foreword.errors import UserError

_TAG = "tag:yaml.org,2002:"
_TYPES = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", "<<", "<"),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: Any = {}  # noqa: RUF012  (PyYAML's own name and place)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        seen: set[str] = set()
        for key in keys:
            if key.value in seen and key.tag != f"{_TAG}merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' is there twice; leave one out", key.start_mark
                )
            seen.add(key.value)
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = f"{_TAG}str"
        return super().construct_mapping(node, deep)


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 16 if text.startswith("0x") else 10)


for _name, _form, _first in _TYPES:
    _Loader.add_implicit_resolver(
        _TAG + _name, re.compile(rf"(?:{_form})\Z"), ["" if c == "\0" else c for c in _first]
    )
_Loader.add_constructor(f"{_TAG}int", _whole_number)


def parse_yaml(text: str, path: Path) -> Any:
    """Return what a text in YAML says.

    Raises UserError, with the line where there is one, for one that cannot be read.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise UserError(f"{path}:{line}: cannot be read ({error.problem})") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply; write a mapping") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
