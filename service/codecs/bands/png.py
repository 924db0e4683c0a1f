"""PNG in bands of rows: inflated as it goes, and cut into small PNG files, which are decoded as any other.

Nothing about what pixels mean belongs here: depth, palette and transparency are for whoever reads the small files.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from service.codecs import png
from service.codecs.header import Pixels
from service.errors import InvalidImage

_STEP = 2**16  # compressed bytes that are offered at once
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; PNG (third edition), table 12
_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}  # by samples


def is_sequential(data: bytes) -> bool:
    """Whether rows stand in order: not interlaced."""
    return data[28] == 0


def slices(data: bytes, band_pixels: int) -> Iterator[bytes]:
    """Cut a PNG that is_sequential into PNGs of some of its rows each, from top to bottom; of one row, or up to band_pixels.

    Raises:
        InvalidImage (422): truncated, corrupt, or a checksum that does not fit; as soon as it is reached.
    """
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if colour not in _SAMPLES or depth not in {1, 2, 4, 8, 16}:
        raise InvalidImage(f"PNG: {depth} bits of colour type {colour} are not read")
    bits = _SAMPLES[colour] * depth
    row_bytes, pixel_bytes = -(-width * bits // 8), max(1, bits // 8)
    meaning, packed = [], []
    for kind, payload in png.checked_chunks(data):
        if kind == b"IDAT":
            packed.append(payload)
        elif kind in {b"PLTE", b"tRNS"}:
            meaning.append(png.write_chunk(kind, payload))
    above = np.zeros((1, row_bytes), np.uint8)
    for band in _inflate(packed, 1 + row_bytes, height, max(1, band_pixels // width)):
        filtered = np.frombuffer(band, np.uint8).reshape(-1, 1 + row_bytes)
        rows = _unfiltered(above, filtered, pixel_bytes)
        above = rows[-1:]
        yield _file((width, len(rows), depth, colour), np.zeros((len(rows), 1), np.uint8), rows, meaning)


def _inflate(packed: list[memoryview], row_bytes: int, rows: int, most: int) -> Iterator[bytes]:
    """Inflate so many rows, at most so many at a time."""
    stream = zlib.decompressobj()
    offered = (piece[start : start + _STEP] for piece in packed for start in range(0, len(piece), _STEP))
    rest = b""
    while rows:
        band_rows = min(rows, most)
        band = bytearray()
        while len(band) < band_rows * row_bytes:
            piece = rest or next(offered, b"")
            try:
                inflated = stream.decompress(piece, band_rows * row_bytes - len(band))
            except zlib.error as error:
                raise InvalidImage("PNG: truncated or corrupt") from error
            if not inflated and not piece:
                raise InvalidImage("PNG: truncated, its data ends before its last row")
            rest = stream.unconsumed_tail
            band += inflated
        rows -= band_rows
        yield bytes(band)


def _unfiltered(above: Pixels, filtered: Pixels, pixel_bytes: int) -> Pixels:
    """Undo the filters of rows, by Pillow.

    A filter takes bytes that lie a pixel's bytes apart, so that a pixel of 6 or 8 bytes (16 bits a sample) can be taken for
    two of 3 or 4: what bytes mean plays no part.

    Args:
        above: (1, B), the row before, unfiltered; zeros before the first.
        filtered: (n, 1 + B), each with its filter before it.
        pixel_bytes: 1, 2, 3, 4, 6 or 8.

    Returns:
        (n, B).
    """
    filters = np.concatenate([np.zeros((1, 1), np.uint8), filtered[:, :1]])
    rows = np.concatenate([above, filtered[:, 1:]]).reshape(1 + len(filtered), -1, pixel_bytes)
    samples = pixel_bytes if pixel_bytes <= 4 else pixel_bytes // 2
    parts = []
    for first in range(0, pixel_bytes, samples):
        part = rows[..., first : first + samples]
        head = (part.shape[1], len(rows), 8, _COLOUR_TYPE[samples])
        data = _file(head, filters, part.reshape(len(rows), -1), [])
        try:
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                parts.append(np.asarray(image).reshape(part.shape))
        except (OSError, SyntaxError, ValueError) as error:
            raise InvalidImage("PNG: truncated or corrupt") from error
    return np.concatenate(parts, axis=2).reshape(len(rows), -1)[1:]


def _file(head: tuple[int, int, int, int], filters: Pixels, rows: Pixels, meaning: list[bytes]) -> bytes:
    """Write a PNG: width, height, depth, colour type; rows as they are, with their filters before them."""
    header = struct.pack(">IIBB3x", *head)
    data = zlib.compress(np.concatenate([filters, rows], axis=1).tobytes(), 0)
    return b"".join(
        [
            png.SIGNATURE,
            png.write_chunk(b"IHDR", header),
            *meaning,
            png.write_chunk(b"IDAT", data),
            png.write_chunk(b"IEND", b""),
        ]
    )
