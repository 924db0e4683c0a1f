"""Long lists of numbers in JSON, read in pieces: one call of simdjson's over 200 MB holds the interpreter's lock for four seconds.

A list that is the value of a member and has only numbers (no quote, no bracket up to its end) is cut out of the text; a string that
nobody can guess is left in its place. So what is left is JSON if and only if the whole was, but for the numbers; and a list of
numbers is one if it is one between each two of its commas. Besides, simdjson keeps up to 13 bytes for each byte that it parses:
of a piece at a time.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from simdjson import Array, Parser

from service.codecs.tensors.document import parse_error
from service.errors import Malformed

LONG = 2**20
"""Bytes from which on a list is cut out: what is shorter is parsed in 15 ms."""

_PIECE = 2**18
"""Bytes that are parsed by one call, in 4 ms."""

_MOST = 64
"""Members that are looked at: each may be looked through to its end."""

_OPENING = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[")


class Cut(NamedTuple):
    """A text without its long lists.

    Attributes:
        text: what is left.
        lists: what stood between the brackets of each, by the string that stands there now.
    """

    text: bytes
    lists: Mapping[str, memoryview]

    def find(self, value: object) -> memoryview | None:
        """Give the list that stood where a value of the text is now; None where none did."""
        if self.lists and isinstance(value, Array) and len(value) == 1 and isinstance(value[0], str):
            return self.lists.get(value[0])
        return None


def cut(text: bytes, member: bytes) -> Cut:
    """Cut long lists of numbers out of JSON.

    Args:
        text: whatever came.
        member: name of the members whose values are cut out.
    """
    left: list[bytes] = []
    lists: dict[str, memoryview] = {}
    if len(text) < LONG:
        return Cut(text, lists)
    token, name = secrets.token_hex(16), b'"%b"' % member
    done = at = 0
    for _ in range(_MOST):
        at = text.find(name, at)
        if at < 0:
            break
        escaped = text[at - 1 : at] == b"\\"  # then it is within a string; else it can be nothing but a name
        at += len(name)
        opening = None if escaped else _OPENING.match(text, at)
        if opening is None:
            continue
        start = opening.end()
        end = text.find(b"]", start)
        if end - start < LONG or any(text.find(other, start, end) >= 0 for other in (b'"', b"[", b"{")):
            continue
        place = f"{token}{len(lists)}"
        lists[place] = memoryview(text)[start:end]
        left += [text[done:start], b'"%b"' % place.encode()]
        done = at = end
    return Cut(b"".join([*left, text[done:]]), lists) if lists else Cut(text, lists)


def pieces(numbers: memoryview) -> Iterator[Array]:
    """Parse what stood between the brackets of a list, one piece after the other: flat lists, together its elements.

    Raises:
        Malformed (400): that is no JSON.
    """
    start, size = 0, len(numbers)
    while start <= size:
        end = _comma(numbers, start)
        try:
            piece = Parser().parse(b"".join((b"[", numbers[start:end], b"]")))
        except (ValueError, RuntimeError, TypeError) as error:
            raise parse_error(error) from None
        assert isinstance(piece, Array)  # by its brackets
        if not len(piece) and (start or end < size):  # nothing before a comma, or behind one
            raise Malformed("JSON: expected an object in UTF-8, got a comma out of place")
        yield piece
        start = end + 1


def _comma(numbers: memoryview, start: int) -> int:
    """Find the comma that ends a piece, or the end."""
    end = start + _PIECE
    while end < len(numbers):
        place = bytes(numbers[start:end]).rfind(b",")
        if place >= 0:
            return start + place
        end += end - start  # a number, or white space, of a quarter of a megabyte
    return len(numbers)
