"""Forms taken apart, against those that httpx and the standard library's email package write."""

from __future__ import annotations

from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.policy import HTTP

import httpx2
import numpy as np
import pytest

from service.codecs.multipart import MAX_PARTS, Part, read_form
from service.errors import Malformed, PayloadTooLarge

TYPE = "multipart/form-data; boundary=b"


def test_form_of_httpx_comes_back(rng: np.random.Generator) -> None:
    data = rng.bytes(5000) + b"\r\n--\r\n\r\n"
    request = httpx2.Request("POST", "http://x", data={"op": "max", "ä": "ö"}, files={"tensor": ("t.npy", data)})
    parts = read_form(request.read(), request.headers["content-type"])
    assert [(part.name, part.file, bytes(part.data)) for part in parts] == [
        ("op", False, b"max"),
        ("ä", False, "ö".encode()),
        ("tensor", True, data),
    ]


def test_form_of_the_standard_library_comes_back() -> None:
    message = MIMEMultipart("form-data", "a boundary")
    part = MIMEApplication(b"\0\r\n\xff", "x-npy", _encoder=lambda _: None)
    part.add_header("Content-Disposition", "form-data", name="mask", filename="a b.npy")
    message.attach(part)
    _, _, body = message.as_bytes(policy=HTTP).partition(b"\r\n\r\n")
    assert read_form(body, message["Content-Type"]) == [
        Part("mask", True, "application/x-npy", memoryview(b"\0\r\n\xff"))
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"--b--", []),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n--b--\r\n', [b""]),
        (b'preamble\r\n--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\nepilogue', [b"x"]),
        (b"--b  \r\ncontent-disposition:form-data;name=a\r\n\r\n-bx\r\n--b--", [b"-bx"]),
    ],
)
def test_edges_of_the_format(body: bytes, expected: list[bytes]) -> None:
    assert [bytes(part.data) for part in read_form(body, TYPE)] == expected


def test_parts_are_views(rng: np.random.Generator) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + rng.bytes(100) + b"\r\n--b--"
    (part,) = read_form(body, TYPE)
    assert part.data.obj is body


@pytest.mark.parametrize(
    "body",
    [b"", b"--b", b"--b\r\n", b"--c--", b"--b\r\nA: b\r\n\r\nx\r\n--b--", b"--b" + b" " * 100 + b"\r\n\r\n"],
)
def test_what_is_no_form_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match="multipart/form-data"):
        read_form(body, TYPE)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=", f"{TYPE}{'x' * 70}"])
def test_boundary_must_be_one(content_type: str) -> None:
    with pytest.raises(Malformed, match="boundary"):
        read_form(b"--b--", content_type)


def test_number_of_parts_is_bounded() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    assert len(read_form(part * MAX_PARTS + b"--b--", TYPE)) == MAX_PARTS
    with pytest.raises(PayloadTooLarge, match=str(MAX_PARTS)):
        read_form(part * (MAX_PARTS + 1) + b"--b--", TYPE)
