"""JSON by lines (.jsonl, .ndjson), and .json: a list of records, an object of columns, or a record a line.

Strict: duplicate keys, NaN and Infinity, half surrogate pairs and rows that are no objects are bad rows.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, NoReturn

from aitrain.data import squad
from aitrain.data.rows import (
    BadRow,
    ColumnNames,
    Count,
    DataFile,
    Item,
    Place,
    Row,
    bytes_reason,
    count_by_reading,
    full_lines,
)

_SPACE = b" \t\r\n"
_NOT_SPACE = re.compile(r"[^ \t\r\n]")
_CHUNK = 1 << 20
# The decoder tells where it stopped; an unfinished `-Infinity` or `\uXXXX` begins within so many characters of the end.
_UNFINISHED = 16
_KINDS = {list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}


class _BadValue(ValueError):
    """JSON that is well formed but that no two programs would read alike."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        raise _BadValue(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise _BadValue(f"{name} is no JSON; use null")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def read_lines(file: DataFile) -> Iterator[Item]:
    """A record a line."""
    with file.open() as stream:
        yield from _parse_lines(file, stream)


def count_lines(file: DataFile, limit: int | None) -> Count:
    return count_by_reading(file, full_lines, limit)


def read_json(file: DataFile) -> Iterator[Item]:
    """A list is streamed; an object of columns is held in memory."""
    with file.open() as stream:
        yield from _parse_json(file, stream)


def count_json(file: DataFile, limit: int | None) -> Count:
    return count_by_reading(file, partial(_parse_json, file), limit, cost=16)


def _parse_lines(file: DataFile, lines: Iterable[bytes]) -> Iterator[Item]:
    name, decode, clean = file.name, _DECODER.raw_decode, ColumnNames().clean
    for number, raw in enumerate(lines, 1):
        line = raw.strip(_SPACE)
        if not line:
            continue
        try:
            text = line.decode()
            values, end = decode(text)
            if end != len(text) or type(values) is not dict or b"\\ud" in line or b"\\uD" in line:
                _check(values, text, end)
            row = Row(clean(values), Place(name, number))
        except (ValueError, RecursionError) as error:
            yield BadRow(Place(name, number), _reason(error, raw))
        else:
            yield row


def _check(values: Any, text: str, end: int) -> None:
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, len(text) - len(text[end:].lstrip()))
    if type(values) is not dict:
        raise _BadValue(_not_an_object(values))
    _check_surrogates(values)


def _check_surrogates(values: dict[str, Any]) -> None:
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise _BadValue(f"\\u{half:04x} is half a character; no text can hold it") from None


def _not_an_object(values: Any) -> str:
    return f'a row is an object {{"column": value}}; this is {_KINDS.get(type(values), "something else")}'


def _reason(error: Exception, raw: bytes) -> str:
    """The reason in one line, with the column (from 1, in characters) of the physical line."""
    if isinstance(error, _BadValue):
        return str(error)
    if isinstance(error, RecursionError):
        return "nested too deeply"
    bad_bytes = bytes_reason(raw)
    if bad_bytes:
        return bad_bytes
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    column = error.pos + 1 + len(raw) - len(raw.lstrip(_SPACE))
    cut = "" if raw.endswith(b"\n") else "; the last line has no line end: is the file cut off?"
    return f"{error.msg.removesuffix(' at')} at column {column}{cut}"


def _parse_json(file: DataFile, stream: BinaryIO) -> Iterator[Item]:
    head, first = _first_line(stream)
    if not first:
        raise file.refuse("is empty")
    if first.startswith(b"["):
        chunks = chain([head + first], iter(lambda: stream.read(_CHUNK), b""))
        yield from _parse_list(file, _Window(file, chunks))
    elif first.startswith(b"{"):
        yield from _parse_objects(file, head, first, stream)
    else:
        line = head.count(b"\n") + 1
        raise file.refuse(f"begins with {chr(first[0])!r}, not with [ or {{", line, "is it JSON?")


def _first_line(stream: BinaryIO) -> tuple[bytes, bytes]:
    """What stands before the first character, and the start of the line from it on."""
    head = b""
    while part := stream.readline(_CHUNK):
        text = part.lstrip(_SPACE)
        head += part[: len(part) - len(text)]
        if text:
            return head, text
    return head, b""


def _parse_objects(file: DataFile, head: bytes, first: bytes, stream: BinaryIO) -> Iterator[Item]:
    first += b"" if first.endswith(b"\n") else stream.readline()
    between: list[bytes] = []
    second = b""
    for second in stream:
        if second.strip(_SPACE):
            break
        between.append(second)
    if (_is_object(first) and second.strip(_SPACE)) or _is_object(second):
        lines = [b"\n"] * head.count(b"\n") + [first, *between, second]
        yield from _parse_lines(file, chain(lines, stream))
        return
    raw = b"".join([head, first, *between, second, stream.read()])
    yield from _columns(file, _whole(file, raw), is_line=not second.strip(_SPACE), line=head.count(b"\n") + 1)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _whole(file: DataFile, raw: bytes) -> dict[str, Any]:
    try:
        values: dict[str, Any] = _DECODER.decode(raw.decode())
        _check_surrogates(values)
        return values
    except json.JSONDecodeError as error:
        advice = "write a list of records, or a record a line" if error.msg == "Extra data" else ""
        raise file.refuse(f"{error.msg.removesuffix(' at')} at column {error.colno}", error.lineno, advice) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise file.refuse(bytes_reason(raw.split(b"\n")[line - 1]), line) from None
    except (ValueError, RecursionError) as error:
        raise file.refuse(_reason(error, b"")) from None


def _columns(file: DataFile, values: dict[str, Any], is_line: bool, line: int) -> Iterator[Item]:
    """The rows of an object of columns, or the one row of an object on one line."""
    if squad.is_nested(values):
        for number, found in enumerate(squad.unfold(values), 1):
            place = Place(file.name, number, "row")
            yield BadRow(place, found) if isinstance(found, str) else Row(found, place)
        return
    advice = "a .json file is a list of records, an object of columns of one length, or a record a line"
    kinds = {name: _KINDS.get(type(column), "an object") for name, column in values.items()}
    lists = {name: column for name, column in values.items() if isinstance(column, list)}
    for name, column in lists.items():
        records = sum(isinstance(value, dict) for value in column)
        if records and (len(lists) < len(values) or len(values) == 1):
            what = f"one object, whose key {name!r} holds a list of {records} records"
            raise file.refuse(what, advice=f"{advice}: keep only that list")
    names = ColumnNames()
    try:
        values = names.clean(values)
    except ValueError as error:
        raise file.refuse(str(error)) from None
    if is_line and values and not lists:
        yield Row(values, Place(file.name, line))
        return
    if not values or len(lists) < len(values):
        found = ", ".join(f"{name!r} {kind}" for name, kind in list(kinds.items())[:8])
        raise file.refuse(f"one object that is no table: {found or 'it is empty'}", advice=advice)
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name!r} {length}" for name, length in list(lengths.items())[:8])
        raise file.refuse(f"columns of different length: {found}", advice=advice)
    for number, fields in enumerate(zip(*values.values(), strict=True), 1):
        yield Row(dict(zip(values, fields, strict=True)), Place(file.name, number, "row"))


class _Window:
    """The part of a text that is being decoded: it grows while a value is unfinished and forgets what was used."""

    def __init__(self, file: DataFile, chunks: Iterator[bytes]) -> None:
        self._file = file
        self._chunks = chunks
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False

    def grow(self) -> None:
        """Adds as much as there is already, so that a long value is tried only a few times."""
        rest, added = self.text[self.at :], 0
        parts = [rest]
        while not self.ended and added <= len(rest):
            part = self._decode(next(self._chunks, b""), "".join(parts))
            parts.append(part)
            added += max(1, len(part))
        self.text, self.at = "".join(parts), 0

    def _decode(self, chunk: bytes, before: str) -> str:
        self.ended = not chunk
        try:
            return self._decoder.decode(chunk, final=self.ended)
        except UnicodeDecodeError as error:
            line = self.line + before.count("\n") + error.object[: error.start].count(b"\n")
            byte = error.object[error.start]
            reason = f"the byte 0x{byte:02x} is no UTF-8; save the file as UTF-8"
            raise self._file.refuse(reason, line) from None

    def move(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def has_surrogates(self, to: int) -> bool:
        """Whether an escape up to `to` may be half of a character."""
        return self.text.find("\\ud", self.at, to) >= 0 or self.text.find("\\uD", self.at, to) >= 0

    def next_mark(self) -> str:
        """The next character that is no space, left in place; '' at the end."""
        while True:
            found = _NOT_SPACE.search(self.text, self.at)
            self.move(found.start() if found else len(self.text))
            if found:
                return found[0]
            if self.ended:
                return ""
            self.grow()

    def refuse(self, reason: str, position: int | None = None) -> NoReturn:
        position = self.at if position is None else position
        line = self.line + self.text.count("\n", self.at, position)
        raise self._file.refuse(reason, line)


def _parse_list(file: DataFile, window: _Window) -> Iterator[Item]:
    clean = ColumnNames().clean
    window.next_mark()
    window.move(window.at + 1)
    mark = window.next_mark()
    while mark != "]":
        place_line = window.line
        values = _next_value(window)
        place = Place(file.name, place_line)
        if isinstance(values, dict):
            try:
                row: Item = Row(clean(values), place)
            except ValueError as error:
                row = BadRow(place, str(error))
            yield row
        else:
            yield BadRow(place, values if isinstance(values, _Reason) else _not_an_object(values))
        mark = _next_item(window)
    window.move(window.at + 1)
    if window.next_mark():
        window.refuse("more text after the end of the list")


def _next_item(window: _Window) -> str:
    """Steps over the comma after a value; gives the first character of the next one, or the closing bracket."""
    mark = window.next_mark()
    if mark == ",":
        window.move(window.at + 1)
        mark = window.next_mark()
        if mark == "]":
            window.refuse("a comma before the end of the list")
    elif mark and mark != "]":
        window.refuse(f"{mark!r} where a comma or the end of the list is expected")
    if not mark:
        window.refuse("the list is not closed: is the file cut off?")
    return mark


class _Reason(str):
    """Why a value of a list is bad, in place of the value."""


def _next_value(window: _Window) -> Any:
    while True:
        try:
            values, end = _DECODER.raw_decode(window.text, window.at)
        except json.JSONDecodeError as error:
            unfinished = error.msg.startswith("Unterminated string") or error.pos >= len(window.text) - _UNFINISHED
            if window.ended or not unfinished:
                cut = ": is the file cut off?" if unfinished else ""
                window.refuse(f"{error.msg.removesuffix(' at')} at column {error.colno}{cut}", error.pos)
            window.grow()
            continue
        except _BadValue as error:
            return _skip_value(window, str(error))
        except (ValueError, RecursionError) as error:
            window.refuse(_reason(error, b""))
        if end == len(window.text) and not window.ended:
            window.grow()  # a number may go on
            continue
        try:
            if isinstance(values, dict) and window.has_surrogates(end):
                _check_surrogates(values)
        except _BadValue as error:
            values = _Reason(error)
        window.move(end)
        return values


def _skip_value(window: _Window, reason: str) -> _Reason:
    """Steps over a well formed value that is not wanted."""
    while True:
        try:
            _, end = json.JSONDecoder().raw_decode(window.text, window.at)
        except ValueError as error:
            if window.ended:
                window.refuse(str(error))
            window.grow()
            continue
        window.move(end)
        return _Reason(reason)
