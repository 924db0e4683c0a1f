"""multipart/form-data (RFC 7578 over RFC 2046) of a body that is in memory: its parts as views, nothing is copied.

Of names and file names the plain and the percent-encoded form of browsers are read; nested multipart is not.
"""

from __future__ import annotations

from typing import NamedTuple

from python_multipart.multipart import parse_options_header

from service.errors import Malformed, PayloadTooLarge

MAX_PARTS = 64
_MAX_HEADERS = 4096
_MAX_BOUNDARY = 70  # RFC 2046, 5.1.1


class Part(NamedTuple):
    """One field of a form.

    Attributes:
        name: of the field.
        file: whether it was sent as a file.
        media_type: lower case, without parameters; "" if absent.
        data: its bytes, a view of the body.
    """

    name: str
    file: bool
    media_type: str
    data: memoryview


def read_form(body: bytes, content_type: str) -> list[Part]:
    """Take a form apart.

    Args:
        body: the whole body.
        content_type: the header, which has the boundary.

    Raises:
        Malformed (400): no boundary, truncated, or a part without a name.
        PayloadTooLarge (413): more than MAX_PARTS parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise Malformed(f"multipart/form-data: expected a boundary of 1 to {_MAX_BOUNDARY} characters in Content-Type")
    view = memoryview(body)
    delimiter = b"\r\n--" + boundary
    first = body.startswith(delimiter[2:])  # else there is a preamble, which is to be ignored
    position = len(delimiter) - 2 if first else _found(body, delimiter, 0) + len(delimiter)
    parts: list[Part] = []
    while body[position : position + 2] != b"--":
        if len(parts) == MAX_PARTS:
            raise PayloadTooLarge(f"multipart/form-data: expected at most {MAX_PARTS} parts, got more")
        start = _found(body, b"\r\n", position, position + 64) + 2
        end_of_headers = body.find(b"\r\n\r\n", start - 2, start + _MAX_HEADERS)
        if end_of_headers < 0:
            raise Malformed(
                f"multipart/form-data: expected headers of at most {_MAX_HEADERS} bytes in part {len(parts)}"
            )
        content = end_of_headers + 4
        end = _found(body, delimiter, content - 2)  # of an empty part the delimiter begins with the headers' last CRLF
        parts.append(_part(body[start:end_of_headers], view[content : max(content, end)], len(parts)))
        position = end + len(delimiter)
    return parts


def _found(body: bytes, what: bytes, start: int, end: int | None = None) -> int:
    place = body.find(what, start, end)
    if place < 0:
        raise Malformed("multipart/form-data: truncated, expected a boundary as Content-Type says it")
    return place


def _part(headers: bytes, data: memoryview, place: int) -> Part:
    disposition: dict[bytes, bytes] = {}
    media_type = ""
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.strip().lower()
        if name == b"content-disposition":
            disposition = parse_options_header(value.strip())[1]
        elif name == b"content-type":
            media_type = value.partition(b";")[0].strip().lower().decode("latin-1")
    if b"name" not in disposition:
        raise Malformed(f"multipart/form-data: expected a name in part {place}")
    try:
        field = disposition[b"name"].decode()
    except UnicodeDecodeError:
        raise Malformed(f"multipart/form-data: expected a name in UTF-8 in part {place}") from None
    return Part(field, b"filename" in disposition, media_type, data)
