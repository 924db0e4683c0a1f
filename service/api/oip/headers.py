"""What the headers of an inference request say that the protocol gives a meaning to."""

from __future__ import annotations

import re
from typing import NamedTuple

from service.api import intake
from service.codecs.compression import Encoding, encoding_of
from service.errors import Malformed, UnsupportedEncoding
from service.settings import Settings

HEADER_LENGTH = b"inference-header-content-length"

_LENGTH = re.compile(rb"[0-9]{1,19}")


class Said(NamedTuple):
    """What the headers say.

    Attributes:
        plain: what they say of any tensor request.
        header_length: bytes of JSON at the body's beginning, decompressed; 0: none, the body is the input; None: all of it is JSON.
        encoding: of the body; None where it is not compressed.
        accept_encoding: as sent; "" if absent.
    """

    plain: intake.Said
    header_length: int | None
    encoding: Encoding | None
    accept_encoding: str


def read_headers(headers: list[tuple[bytes, bytes]], settings: Settings) -> Said:
    """Go over the headers, and refuse a body by what they say of it.

    Raises:
        Malformed (400): Inference-Header-Content-Length is no decimal number, or is there twice.
        PayloadTooLarge (413): Content-Length passes max_body_bytes.
        UnsupportedEncoding (415): a Content-Encoding other than gzip and deflate.
        InvalidParameter (422): X-Request-Timeout is no positive number.
    """
    header_length: int | None = None
    encoding: Encoding | None = None
    accept_encoding = ""
    others = headers
    for name, value in headers:  # lower case, as ASGI has them
        if name == HEADER_LENGTH:
            if header_length is not None:
                raise Malformed("Inference-Header-Content-Length: expected once, is there twice")
            if not _LENGTH.fullmatch(value):
                raise Malformed(
                    "Inference-Header-Content-Length: expected a decimal number of bytes, got something else"
                )
            header_length = int(value)
        elif name == b"accept-encoding":
            text = value.decode("latin-1")
            accept_encoding = f"{accept_encoding},{text}" if accept_encoding else text
        elif name == b"content-encoding":
            if others is not headers:
                raise UnsupportedEncoding("Content-Encoding: expected once, is there twice", ("gzip", "deflate"))
            encoding = encoding_of(value.decode("latin-1"))
            others = [header for header in headers if header[0] != b"content-encoding"]
    return Said(intake.read_headers(others, settings), header_length, encoding, accept_encoding)
