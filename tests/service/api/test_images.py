"""Images over HTTP: every format and mode gives the network's answer for its pixels; every broken one its own error."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.claims import assert_error
from tests.conftest import MakeClient
from tests.pictures import Picture, encode, exif, gallery, noise, png_header, stored_as, textured
from tests.service.api.colour import assert_healthy, assert_result

URL = "/v1/classify?model=colour&top=3"


@pytest.mark.parametrize("picture", gallery(0, 9, 13), ids=str)
def test_every_format_and_mode_is_read(client: TestClient, picture: Picture) -> None:
    assert_result(client.post(URL, content=picture.data).json()["results"][0], picture.rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_orientation_is_honoured(
    client: TestClient, orientation: int, image_format: str, rng: np.random.Generator
) -> None:
    upright = noise(6, 11, 3, rng)
    data = encode(stored_as(upright, orientation), image_format, exif=exif(orientation))
    assert_result(client.post(URL, content=data).json()["results"][0], upright)


def test_animation_is_its_first_frame(client: TestClient, rng: np.random.Generator) -> None:
    frames = [Image.fromarray(noise(8, 8, 1, rng)[..., 0]) for _ in range(4)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    first = np.repeat(np.asarray(frames[0])[..., None], 3, axis=2)
    assert_result(client.post(URL, content=data).json()["results"][0], first)
    assert_healthy(client)


BROKEN = {
    "not an image": (b"hello, this is a letter", 415, "unsupported_media_type"),
    "a page": (b"<!DOCTYPE html><html></html>", 415, "unsupported_media_type"),
    "a vector drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "unsupported_media_type"),
    "a document": (b"%PDF-1.7\n", 415, "unsupported_media_type"),
    "empty": (b"", 400, "malformed"),
    "a truncated JPEG": (encode(textured(40, 60), "JPEG")[:-200], 422, "invalid_image"),
    "a truncated PNG": (encode(textured(40, 60), "PNG")[:-200], 422, "invalid_image"),
    "a truncated WebP": (encode(textured(40, 60), "WebP")[:-200], 422, "invalid_image"),
    "a truncated GIF": (encode(textured(40, 60)[..., 0], "GIF")[:-200], 422, "invalid_image"),
    "a truncated BMP": (encode(textured(40, 60), "BMP")[:-200], 422, "invalid_image"),
    "a truncated TIFF": (encode(textured(40, 60), "TIFF")[:-200], 422, "invalid_image"),
    "a PNG that claims 60000×60000": (png_header(60_000, 60_000), 413, "payload_too_large"),
    "a PNG that claims 0×0": (png_header(0, 0), 422, "invalid_image"),
}


@pytest.mark.parametrize(("data", "status", "code"), BROKEN.values(), ids=BROKEN)
def test_broken_image_has_its_own_error(client: TestClient, data: bytes, status: int, code: str) -> None:
    assert_error(client.post(URL, content=data), status, code)
    assert_healthy(client)


def test_image_past_max_pixels_is_refused(make_client: MakeClient) -> None:
    client = make_client(max_pixels=100)
    assert client.post(URL, content=encode(textured(10, 10), "PNG")).status_code == 200
    assert_error(
        client.post(URL, content=encode(textured(1, 101), "PNG")),
        413,
        "payload_too_large",
        "at most 100 pixels",
        "101x1",
    )
    assert_healthy(client)
