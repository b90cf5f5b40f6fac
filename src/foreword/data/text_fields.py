"""Fields that are texts: which values of a row are taken as one."""

from __future__ import annotations

import math

from foreword.data.row import Row, kind
from foreword.errors import UserError


def check_text(row: Row, name: str, value: object) -> None:
    """Raise UserError where the value of a row's field is no text, or blank."""
    field = f'{row.where}: field "{name}"'
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UserError(f"{field} is empty; fill it or remove the row", field=name)
    if isinstance(value, float) and math.isnan(value):
        raise UserError(
            f"{field} is NaN, an empty cell to most tools; fill it or remove the row", field=name
        )
    if not isinstance(value, str | int | float):
        raise UserError(
            f"{field} is {kind(value)}, expected text; write it as one string", field=name
        )
    if isinstance(value, str):
        check_unicode(row, name, value)


def check_unicode(row: Row, name: str, text: str) -> None:
    """Refuse halves of surrogate pairs: JSON can spell them, but no tokenizer takes them."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise UserError(
            f'{row.where}: field "{name}" holds half a character ({half}); remove it', field=name
        ) from None
