"""Encoded images out of a request's body: raw, multipart/form-data, or JSON with base64; and the parameters that came with them."""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import orjson
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import InvalidImage, InvalidParameter, Malformed, PayloadTooLarge
from service.settings import Settings


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


async def parse_upload(request: Request, body: bytes, settings: Settings) -> Upload:
    """Take the images out of a body.

    Only JSON and multipart are told by their Content-Type; whatever else is called is one image, and its content decides.

    Raises:
        Malformed: 400; not JSON, not multipart, or of another form than the documented one.
        InvalidImage: 422; not base64. InvalidParameter: 422; no image. PayloadTooLarge: 413; more than max_images.
    """
    kind = _media_type(request)
    if kind == "application/json":
        upload = _from_json(body)
    elif kind == "multipart/form-data":
        upload = await _from_multipart(request, body, settings)
    else:
        return Upload([body], many=False)
    if not upload.images:
        raise InvalidParameter("expected at least one image, got none")
    if len(upload.images) > settings.max_images:
        raise PayloadTooLarge(f"expected at most {settings.max_images} images in a request, got {len(upload.images)}")
    return upload


def _from_json(body: bytes) -> Upload:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(document, dict):
        raise Malformed(f'expected a JSON object {{"images": ["<base64>", …]}}, got {_json_type(document)}')
    images = document.pop("images", None)
    if not isinstance(images, list):
        raise Malformed(f'expected "images" to be a list of base64 strings, got {_json_type(images)}')
    return Upload([_from_base64(text, place) for place, text in enumerate(images)], document)


def _from_base64(text: object, place: int) -> bytes:
    if not isinstance(text, str):
        raise Malformed(f"images[{place}]: expected a base64 string, got {_json_type(text)}")
    if text.startswith("data:"):  # what a browser's FileReader gives
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImage(f"images[{place}]: expected base64 (no URL is fetched), got other characters") from None


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")


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
