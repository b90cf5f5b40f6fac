"""Settings: the fields of configurations, with the help of their flags.

They can be read from a configuration's source text too, so that a command lists its flags without
importing what the configurations stand on.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from foreword.errors import UserError

T = TypeVar("T")

PACKAGE = __name__.partition(".")[0]
ROOT = Path(__file__).parents[1]
"""The folder of the package's sources, which are read and not imported."""


FILE = "file"
"""What ``values`` of a setting is where it names a file or a folder."""

SEEDS = 2**63
"""How many seeds there are, from 0: torch takes no larger ones."""

RENAMED = {"rate": "lr", "source": "from"}
"""Settings whose flags have other names."""


def in_code(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their names in code, where some may have those of their flags.

    Raises UserError for one that has both.

    >>> in_code({"lr": 0.01, "epochs": 2})
    {'rate': 0.01, 'epochs': 2}
    """
    back = {flag: name for name, flag in RENAMED.items()}
    for flag, name in back.items():
        if {flag, name} <= settings.keys():
            raise UserError(f"`{flag}` and `{name}` are one setting; leave one out")
    return {back.get(name, name): value for name, value in settings.items()}


Values = tuple[str, ...] | str


def setting(
    default: T,
    *,
    help: str,
    common: bool = False,
    panel: str = "",
    values: Values = (),
    optional: bool = False,
) -> T:
    """Return a dataclass field with a default, and with what its flag says.

    ``help`` is one line about it. ``common`` ones are shown by ``--help``, the others by
    ``--help-all``, under the title ``panel``; without one the title says whose setting it is.
    ``values`` are words that a shell completes, or FILE; others may be given all the same.
    An ``optional`` one is left out of files where it has its default: older files lack it too.
    """
    about = {"help": help, "common": common, "panel": panel, "values": values}
    return dataclasses.field(default=default, metadata={**about, "optional": optional})


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a configuration; ``default`` is None too where it is no plain value.

    Of a configuration in a field it is what differs from that one's own defaults, as a dict.

    The rest is what :func:`setting` was given.
    """

    name: str
    type: Any
    default: Any
    help: str = ""
    common: bool = False
    panel: str = ""
    values: Values = ()

    @property
    def flag(self) -> Any:
        """The type of what one flag can say: str, int, float, bool, a Literal, or list[str]."""
        return _flag(self.type)


ABOUT = tuple(
    f.name for f in dataclasses.fields(Setting) if f.name not in ("name", "type", "default")
)
"""What :func:`setting` is given beside the default."""


def _flag(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not types.NoneType]
        return _flag(options[0])
    if get_origin(hint) is Literal or hint in (str, int, float, bool):
        return hint
    return list[str]


def settings_of(cls: type[Any]) -> tuple[Setting, ...]:
    """Return the settings of a dataclass."""
    hints = typing.get_type_hints(cls)
    return tuple(
        Setting(
            f.name,
            hints[f.name],
            None if f.default is dataclasses.MISSING else f.default,
            **{name: f.metadata[name] for name in ABOUT if name in f.metadata},
        )
        for f in dataclasses.fields(cls)
    )


@cache
def declared(path: str) -> tuple[Setting, ...]:
    """Return the settings of the dataclass ``"module:Class"`` by its source; it is not imported.

    Aliases of types are followed to where they are defined. Other classes, in types, are given as
    ``object``.
    """
    module, _, name = path.partition(":")
    source = _Source.of(module, name)
    node = source.defined[name]
    assert isinstance(node, ast.ClassDef), f"{path} is no class"
    found: dict[str, Setting] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and (home := source.home(base.id)) is not None:
            found |= {each.name: each for each in declared(home)}
    decorated = any("dataclass" in ast.unparse(each) for each in node.decorator_list)
    for line in node.body if decorated else ():
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            hint = source.type(line.annotation)
            if get_origin(hint) is not ClassVar:
                found[line.target.id] = _field(line.target.id, hint, source, line.value)
    return tuple(found.values())


def _field(name: str, hint: Any, source: _Source, value: ast.expr | None) -> Setting:
    """Return a field of a class by what stands behind its type."""
    if not isinstance(value, ast.Call):
        return Setting(name, hint, source.constant(value))
    given = {keyword.arg: keyword.value for keyword in value.keywords}
    default = value.args[0] if value.args else given.get("default")
    if isinstance(made := given.get("default_factory"), ast.Lambda):
        default = _arguments(made.body)
    about = {each: source.constant(given[each]) for each in ABOUT if each in given}
    return Setting(name, hint, source.constant(default), **about)


def _arguments(call: ast.expr) -> ast.expr | None:
    """Return the keywords of a call as a dict, as in ``lambda: Decoding(beams=2)``."""
    if not isinstance(call, ast.Call):
        return None
    return ast.Dict(
        [ast.Constant(each.arg) for each in call.keywords], [each.value for each in call.keywords]
    )


class _Source:
    """What a module defines and imports, by its source text.

    With ``fields_of`` a class, only as far as that class's first method: the rest takes time.
    """

    def __init__(self, module: str, fields_of: str | None = None) -> None:
        package, *names = module.split(".")
        assert package == PACKAGE, f"{module} is of another package"
        path = ROOT.joinpath(*names)
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        self.module = module
        self.defined: dict[str, ast.stmt] = {}
        self.imported: dict[str, tuple[str, str]] = {}
        text = file.read_text("utf-8")
        if fields_of is not None:
            start = re.compile(rf"^class {fields_of}\b", re.MULTILINE).search(text)
            end = start and re.compile(r"^    (def|@)", re.MULTILINE).search(text, start.end())
            text = text[: end.start()] if end else text
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                self.defined[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.defined[node.targets[0].id] = node
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = (node.module, alias.name)

    @staticmethod
    @cache
    def of(module: str, fields_of: str | None = None) -> _Source:
        """Return the source of a module, read once."""
        return _Source(module, fields_of)

    def home(self, name: str) -> str | None:
        """Return where a name is defined, ``"module:name"``; None for those of other packages."""
        if name in self.defined:
            return f"{self.module}:{name}"
        module, original = self.imported.get(name, ("", ""))
        own = module.partition(".")[0] == PACKAGE
        return _Source.of(module).home(original) if own else None

    def type(self, annotation: ast.expr) -> Any:
        """Return the type that an annotation, or the value of an alias, stands for."""
        if isinstance(annotation, ast.Name):  # most are; to compile the others takes longer
            return self.named(annotation.id)
        if isinstance(annotation, ast.Constant):
            return annotation.value
        if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
            return self.type(annotation.left) | self.type(annotation.right)
        return eval(compile(ast.Expression(annotation), self.module, "eval"), {}, _Names(self))

    def named(self, name: str) -> Any:
        """Return what a name stands for in an annotation."""
        if (home := self.home(name)) is not None:
            module, _, original = home.partition(":")
            source = _Source.of(module)
            node = source.defined[original]
            return source.type(node.value) if isinstance(node, ast.Assign) else object
        for known in (builtins, typing, collections.abc):
            if hasattr(known, name):
                return getattr(known, name)
        return object

    def constant(self, value: ast.expr | None) -> Any:
        """Return a literal, or the constant of that name; None for anything else."""
        if isinstance(value, ast.Name) and (home := self.home(value.id)) is not None:
            module, _, original = home.partition(":")
            node = _Source.of(module).defined[original]
            return _Source.of(module).constant(node.value) if isinstance(node, ast.Assign) else None
        try:
            return None if value is None else ast.literal_eval(value)
        except ValueError:
            return None


class _Names(dict[str, Any]):
    """The names in an annotation, found when they are asked for."""

    def __init__(self, source: _Source) -> None:
        super().__init__()
        self.source = source

    def __missing__(self, name: str) -> Any:
        return self.source.named(name)
