"""The commands that clean and split files of rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from foreword.cli.common import Json
from foreword.cli.reading import USUAL_TABLE, ReadTable
from foreword.cli.whole import Seed, Whole
from foreword.data.bad_rows import BadRows
from foreword.data.clean import clean as clean_rows
from foreword.data.formats import TABLES
from foreword.data.row import Row
from foreword.data.shapes import inputs_of, required_of
from foreword.data.split import NAMES, by_shares, few
from foreword.data.write import check_apart, check_writable, write_rows
from foreword.display import console
from foreword.errors import UserError, nearest
from foreword.grammar import counted

SHOWN = 3
"""Places of a problem that are named."""

Fields = Annotated[
    list[str] | None,
    Parameter(
        name="--fields",
        consume_multiple=True,
        help="those by which rows are compared; else what is usually read of them",
    ),
]
LabelField = Annotated[str, Parameter(help="the field that holds the label")]
Overwrite = Annotated[bool, Parameter(name="--force", help="replace files")]


def clean(
    file: Annotated[str, Parameter(help="rows to clean")],
    /,
    *,
    out: Annotated[Path, Parameter(help="the .csv, .tsv or .jsonl file to write")],
    without: Annotated[
        list[str] | None,
        Parameter(consume_multiple=True, help="files whose texts are left out too"),
    ] = None,
    reading: ReadTable = USUAL_TABLE,
    fields: Fields = None,
    label_field: LabelField = "label",
    dry_run: Annotated[bool, Parameter(help="say what would be done")] = False,
    force: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the rows of a file in NFC and without control characters, and leave out what is wrong.

    That is: rows that cannot be read, with an empty field, or with one text and several labels, and
    repetitions.
    """
    check_writable(out)
    check_apart(out, file, *(without or ()))
    bad = BadRows()
    rows = reading.read(file, on_bad=bad)
    bad.check(rows)
    check_fields(rows, fields)
    names = fields or inputs_of(rows[0], label_field)
    known = [row for other in without or () for row in _comparable(reading.read(other), names)]
    made = clean_rows(rows, fields=fields, label_field=label_field, known=known)
    if not made.rows:
        raise UserError(f"{file}: no row would be left; see foreword data check {file}")
    unread = {"dropped: cannot be read": bad.places} if bad.errors else {}
    changed = {**unread, **made.changes}
    count = len(rows) + len(bad.errors)
    if not dry_run:
        _write({out: made.rows}, file, force)
    if as_json:
        changes = {
            kind: {"rows": len(places), "places": places} for kind, places in changed.items()
        }
        about = {"out": None if dry_run else str(out), "read": count, "kept": len(made.rows)}
        console.emit({**about, "compared": list(names), "changes": changes})
        return
    for kind, places in changed.items():
        console.line(f"{kind}: {_counted(places)}")
    does = "would keep" if dry_run else "keeps"
    console.line(
        f"{out} {does} {len(made.rows)} of {counted(count, 'row')}, compared by {', '.join(names)}"
    )


def split(
    file: Annotated[str, Parameter(help="rows to split")],
    /,
    *,
    out: Annotated[
        Path, Parameter(help="the folder to write train, dev and test in, as CSV if that is read")
    ],
    dev: Annotated[
        float | None, Parameter(help="share of the rows for dev; 0.1 unless said")
    ] = None,
    test: Annotated[
        float | None, Parameter(help="share of the rows for test; 0.1 unless said")
    ] = None,
    per_label: Annotated[
        Whole | None,
        Parameter(help="rows of each label in train, as many in dev, the rest in test"),
    ] = None,
    group: Annotated[str | None, Parameter(help="rows of one value here stay together")] = None,
    reading: ReadTable = USUAL_TABLE,
    fields: Fields = None,
    label_field: LabelField = "label",
    seed: Annotated[Seed, Parameter(help="decides which row goes where")] = 0,
    force: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Part a file into train, dev and test, each label in proportion; one text is on one side only.

    With --per-label K, train and dev have K rows of each label (few-shot learning).
    """
    suffix = Path(file.removesuffix(".gz")).suffix.lower()
    ending = {".xlsx": ".csv"}.get(suffix, suffix if suffix in TABLES else ".jsonl")
    paths = {name: out / f"{name}{ending}" for name in NAMES}
    for path in paths.values():
        check_apart(path, file)
    rows = reading.read(file)
    check_fields(rows, fields)
    by = label_field if label_field in rows[0].fields else None
    if by is None and (label_field != "label" or per_label is not None):
        hint = nearest(label_field, rows[0].fields)
        raise UserError(f"{rows[0].where}: no field '{label_field}' to part by; {hint}")
    if per_label is None:
        shares = (0.1 if dev is None else dev, 0.1 if test is None else test)
        found = by_shares(rows, *shares, seed, by=by, group=group, fields=fields)
    elif dev is not None or test is not None:
        raise UserError(
            "--per-label says how large dev is and leaves test the rest; give no shares"
        )
    else:
        assert by is not None, "looked for above"
        found = few(rows, per_label, seed, by, group=group, fields=fields)
    _write({path: found.get(name, []) for name, path in paths.items()}, file, force)
    if as_json:
        console.emit(
            {name: {"file": str(paths[name]), "rows": len(r)} for name, r in found.items()}
        )
        return
    for name, own in found.items():
        console.line(f"{paths[name]}: {counted(len(own), 'row')}")


def check_fields(rows: Sequence[Row], fields: Sequence[str] | None) -> None:
    """Raise UserError for a name of ``--fields`` that the first row has not."""
    for name in fields or ():
        if name not in rows[0].fields:
            hint = nearest(name, rows[0].fields)
            raise UserError(f"{rows[0].where}: no field '{name}', which --fields names; {hint}")


def _comparable(rows: Sequence[Row], fields: Sequence[str]) -> Sequence[Row]:
    """Return the rows of a file; raises UserError for a compared field that none of them has."""
    for name in required_of(fields, named=True):
        if not any(name in row.fields for row in rows):
            hint = nearest(name, rows[0].fields)
            raise UserError(
                f"{rows[0].where}: no field '{name}' to compare by; {hint}; rename its column, or "
                "name those to compare with --fields"
            )
    return rows


def _write(files: dict[Path, list[Row]], like: str, force: bool) -> None:
    """Write files of rows, and none for no rows, of which none is left there either.

    Raises UserError before the first where one would be replaced.
    """
    for path in files:
        if path.exists() and not force:
            raise UserError(
                f"{path}: is there already; choose another --out, or --force to replace it"
            )
    for path, rows in files.items():
        if rows:
            write_rows(path, [row.fields for row in rows], like=like)
        else:
            path.unlink(missing_ok=True)


def _counted(places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return f"{len(places)} ({', '.join(places[:SHOWN])}{more})"
