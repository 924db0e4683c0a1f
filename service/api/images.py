"""Encoded images out of a request's body: raw, multipart/form-data, or JSON with base64; and the parameters that came with them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from dataclasses import dataclass, field

from fastapi import Request
from simdjson import Array
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.codecs.tensors.base64_text import NoBase64, read_base64
from service.codecs.tensors.document import MAX_VALUES, parse
from service.codecs.tensors.dtypes import kind_of
from service.errors import InvalidImage, InvalidParameter, Malformed, PayloadTooLarge
from service.settings import Settings

_QUICK = 2**16
"""Bytes of JSON that are read on the event loop."""

_SCANNED = 2**20
"""Bytes of JSON that are parsed whatever they are, in 5 ms at most; of more it is looked first how many values there are."""

_MAX_MARKS = 4 * MAX_VALUES
"""Commas and opening brackets beside those of the images: all values that parameters may have, and as many again in texts."""


@dataclass
class Upload:
    """What a body brought.

    Attributes:
        images: encoded, in order.
        parameters: by name; JSON values, or text from form fields.
        many: whether errors name an image by its place.
    """

    images: list[bytes]
    parameters: dict[str, object] = field(default_factory=dict)
    many: bool = True


def carries_parameters(request: Request) -> bool:
    """Say by the Content-Type whether the body may bring parameters, so that the model may not be known before it is read."""
    return _media_type(request) in {"multipart/form-data", "application/json"}


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def parse_upload(request: Request, body: bytes, settings: Settings, threads: Executor) -> Upload:
    """Take the images out of a body.

    Only JSON and multipart are told by their Content-Type; whatever else is called is one image, and its content decides.

    Args:
        request: whose Content-Type it is.
        body: all of it.
        settings: for the limits.
        threads: where large JSON is read.

    Raises:
        Malformed: 400; not JSON, not multipart, or of another form than the documented one.
        InvalidImage: 422; not base64. InvalidParameter: 422; no image. PayloadTooLarge: 413; more than max_images.
    """
    kind = _media_type(request)
    if kind == "application/json":
        if len(body) <= _QUICK:
            upload = _from_json(body, settings)
        else:
            upload = await asyncio.get_running_loop().run_in_executor(threads, _from_json, body, settings)
    elif kind == "multipart/form-data":
        upload = await _from_multipart(request, body, settings)
    else:
        return Upload([body], many=False)
    if not upload.images:
        raise InvalidParameter("expected at least one image, got none")
    if len(upload.images) > settings.max_images:
        raise PayloadTooLarge(f"expected at most {settings.max_images} images in a request, got {len(upload.images)}")
    return upload


def _from_json(body: bytes, settings: Settings) -> Upload:
    """Read {"images": […], …}; of what is too much nothing is made, be it a list of a million texts."""
    most = settings.max_images
    if len(body) > _SCANNED:
        _refuse_many(body, _MAX_MARKS + most, most)
    document = parse(body, max_elements=0)
    images = document.value("images")
    if not isinstance(images, Array):
        came = kind_of(images) if "images" in document else "none"
        raise Malformed(f'expected "images" to be an array of base64 strings, got {came}')
    if len(images) > most:
        raise PayloadTooLarge(f"expected at most {most} images in a request, got {len(images)}")
    return Upload([_from_base64(text, place) for place, text in enumerate(images)], document.members({"images"}))


def _refuse_many(body: bytes, most: int, max_images: int) -> None:
    """Refuse a body with more values than a request can have, before it is parsed: that would take a second of 100 MB.

    Every value but the first has a comma or a bracket before it, and base64 has none of them.
    """
    marks = 0
    for start in range(0, len(body), _SCANNED):  # one call for all of it would hold the interpreter's lock
        marks += sum(body.count(mark, start, start + _SCANNED) for mark in (b",", b"[", b"{"))
        if marks > most:
            raise PayloadTooLarge(
                f"expected at most {max_images} images in a request and few parameters, got more than {most} values"
            )


def _from_base64(text: object, place: int) -> bytes:
    if not isinstance(text, str):
        raise Malformed(f"images[{place}]: expected a base64 string, got {kind_of(text)}")
    if text.startswith("data:"):  # what a browser's FileReader gives
        text = text.partition(",")[2]
    try:
        return read_base64(text)
    except NoBase64 as error:
        raise InvalidImage(f"images[{place}]: expected base64, padded (no URL is fetched), got {error}") from None


class _MemoryParser(MultiPartParser):
    spool_max_size = sys.maxsize  # the body is in memory already; nothing is written to disk


async def _from_multipart(request: Request, body: bytes, settings: Settings) -> Upload:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _MemoryParser(request.headers, stream(), max_files=settings.max_images, max_fields=32)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise PayloadTooLarge(f"expected at most {settings.max_images} images in a request") from None
        raise Malformed(f"the body is not multipart/form-data: {error.message}") from None
    except KeyError:
        raise Malformed("multipart/form-data: expected a boundary in the Content-Type") from None
    upload = Upload([])
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            upload.images.append(await value.read())
        elif name in upload.parameters:
            raise InvalidParameter(f"parameter {name[:64]!r} is given twice")
        else:
            upload.parameters[name] = value
    await form.close()
    return upload
