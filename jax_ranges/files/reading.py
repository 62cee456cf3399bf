"""Reading what may be damaged: from bytes to text, from text to JSON, and what is quoted of it.

Everything that can be wrong with a file is a ValueError here that says what and where, so that no
reader has to know what else Python raises: RecursionError for nesting, UnicodeDecodeError without
a line, and for a number of thousands of digits an error that tells to change the interpreter.
"""

from __future__ import annotations

import json
import re
import reprlib
from typing import Any

DEPTH = 48
"""How deep JSON may be nested: arrays of 32 axes are lists in lists in a few objects."""

LENGTH = 60
"""How much of a word is quoted in an error."""

_FOREIGN = {
    b"\x1f\x8b": "compressed by gzip: decompress it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"\xff\xfe": "in UTF-16: save it as UTF-8",
    b"\xfe\xff": "in UTF-16: save it as UTF-8",
}


def decoded(data: bytes) -> str:
    """The text of a file in UTF-8, without the byte order mark of spreadsheet programs."""
    for start, what in _FOREIGN.items():
        if data.startswith(start):
            raise ValueError(f"it is {what}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Counted in what was decoded, which has no byte order mark.
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise ValueError(f"line {line} is no UTF-8: it has the byte 0x{byte:02x}") from error


def parsed_json(text: str) -> Any:
    """The JSON value that `text` is; ValueError says why it is none, or none that we read."""
    try:
        document = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(_long_number(text) or str(error)) from error
    _check_depth(document)
    return document


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{quoted(twice)} occurs twice in the object {quoted(found)}")
    return found


def _long_number(text: str) -> str | None:
    """What Python says of too many digits, with the line, and without its advice."""
    found = re.search("[0-9]{4000,}", text)
    if found is None:
        return None
    line = text.count("\n", 0, found.start()) + 1
    return f"line {line} has a number of {len(found[0])} digits"


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(DEPTH):
        level = [child for each in level for child in _nested_children(each) if child]
        if not level:
            return
    raise ValueError(f"it is nested more than {DEPTH} deep")


def _nested_children(value: Any) -> list[Any]:
    """The lists and objects in a list or an object."""
    if not isinstance(value, list | dict):
        return []
    inside = value.values() if isinstance(value, dict) else value
    return [each for each in inside if isinstance(each, list | dict)]


def quoted(value: Any) -> str:
    """A value as it is shown in errors: on one line, and not too long."""
    return shortened(_QUOTES.repr(value))


def plainly(text: Any) -> str:
    """The same without quotes, if it is a short and printable text."""
    is_plain = isinstance(text, str) and text.isprintable() and len(text) <= LENGTH
    return text if is_plain else quoted(text)


def shortened(text: str) -> str:
    """A text of which no more is shown than is read."""
    return text if len(text) <= 2 * LENGTH else f"{text[: 2 * LENGTH]}..."


_QUOTES = reprlib.Repr()
_QUOTES.maxstring = _QUOTES.maxother = _QUOTES.maxlong = LENGTH
