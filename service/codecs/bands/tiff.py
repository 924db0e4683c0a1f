"""TIFF in bands of rows: its strips or tiles are compressed each by itself, so that some of them are a TIFF again."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.codecs import tiff
from service.errors import InvalidImage

_OLD_JPEG, _YCBCR = (
    6,
    6,
)  # a compression whose strips share tables elsewhere in the file; a colour space that shares samples
_LONG, _LONG8 = 4, 16
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR = 256, 257, 258, 259, 262, 277, 284
_STRIPS, _STRIP_ROWS, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325


@dataclass(frozen=True)
class Layout:
    """Where the pieces of a picture lie.

    Attributes:
        width: pixels.
        height: pixels.
        piece_rows: of a strip, or of a row of tiles.
        across: pieces beside each other.
        planes: sets of pieces; more than 1 where each channel is stored by itself.
        offsets: of the pieces, from left to right, from top to bottom, plane after plane.
        counts: their bytes.
    """

    width: int
    height: int
    piece_rows: int
    across: int
    planes: int
    offsets: Sequence[int]
    counts: Sequence[int]


def layout(data: bytes) -> Layout | None:
    """Find the pieces; None where there is one only, or where it takes more than themselves to decode them.

    Raises:
        InvalidImage (422): a directory that is truncated or contradicts itself.
    """
    fields = tiff.read_fields(data)

    def first(tag: int, default: int) -> int:
        values = fields[tag].integers if tag in fields else ()
        return values[0] if values else default

    width, height, samples = first(_WIDTH, 0), first(_HEIGHT, 0), first(_SAMPLES, 1)
    tiled = _TILES in fields
    piece_rows = first(_TILE_HEIGHT, 0) if tiled else min(first(_STRIP_ROWS, height), height)
    tile_width = first(_TILE_WIDTH, 0) if tiled else width
    tags = (_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)
    offsets, counts = (fields[tag].integers if tag in fields else () for tag in tags)
    compression = first(_COMPRESSION, 1)
    if not (width and height and piece_rows and tile_width and offsets and counts) or compression == _OLD_JPEG:
        return None
    planes = samples if first(_PLANAR, 1) == 2 else 1
    across = -(-width // tile_width)
    row_bytes = -(-width * samples * first(_BITS, 1) // 8)
    plain = compression == 1 and not tiled and planes == 1 and first(_PHOTOMETRIC, 0) != _YCBCR
    if (
        plain and len(offsets) == 1 and counts[0] >= height * row_bytes
    ):  # a single strip, but each row is a strip as well
        offsets, counts = tuple(offsets[0] + row * row_bytes for row in range(height)), (row_bytes,) * height
        piece_rows = 1
    if len(offsets) != len(counts) or len(offsets) != planes * across * -(-height // piece_rows):
        return None  # readers make of it what they can
    if piece_rows >= height:
        return None
    return Layout(width, height, piece_rows, across, planes, offsets, counts)


def slices(data: bytes, found: Layout, band_pixels: int) -> Iterator[bytes]:
    """Cut a TIFF into TIFFs of some of its strips or rows of tiles each, from top to bottom; of one, or up to band_pixels.

    Raises:
        InvalidImage (422): truncated.
    """
    fields = tiff.read_fields(data)
    down = -(-found.height // found.piece_rows)
    together = max(1, band_pixels // (found.piece_rows * found.width))
    for top in range(0, down, together):
        bottom = min(down, top + together)
        rows = min(found.height, bottom * found.piece_rows) - top * found.piece_rows
        chosen = [
            (plane * down + row) * found.across + column
            for plane in range(found.planes)
            for row in range(top, bottom)
            for column in range(found.across)
        ]
        pieces = [data[found.offsets[i] : found.offsets[i] + found.counts[i]] for i in chosen]
        if any(len(piece) != found.counts[i] for i, piece in zip(chosen, pieces, strict=True)):
            raise InvalidImage("TIFF: truncated, a strip or tile lies outside the data")
        lengths = _longs([len(piece) for piece in pieces])
        changed = {_HEIGHT: _longs([rows])}
        if _TILES in fields:
            offsets_tag, changed[_TILE_BYTES] = _TILES, lengths
        else:
            offsets_tag, changed[_STRIP_BYTES] = _STRIPS, lengths
            changed[_STRIP_ROWS] = _longs([found.piece_rows])
        order = "<" if data[:1] == b"I" else ">"
        yield _file(order, {tag: _narrow(field) for tag, field in fields.items()} | changed, offsets_tag, pieces)


def _longs(values: Sequence[int]) -> tiff.Field:
    return tiff.Field(_LONG, len(values), b"", tuple(values))


def _narrow(field: tiff.Field) -> tiff.Field:
    """Write 64-bit integers, which only BigTIFF has, in 32 bits."""
    return _longs(field.integers) if field.kind == _LONG8 else field


def _file(order: str, fields: dict[int, tiff.Field], offsets_tag: int, pieces: Sequence[bytes]) -> bytes:
    """Write a TIFF of one directory and its pieces; the field of their offsets is made here."""
    fields = fields | {offsets_tag: _longs([0] * len(pieces))}
    raws = {tag: field.raw or struct.pack(f"{order}{field.number}I", *field.integers) for tag, field in fields.items()}
    outside_at = 8 + 2 + 12 * len(fields) + 4
    pieces_at = outside_at + sum(len(raw) for raw in raws.values() if len(raw) > 4)
    starts = itertools.accumulate((len(piece) for piece in pieces[:-1]), initial=pieces_at)
    raws[offsets_tag] = struct.pack(f"{order}{len(pieces)}I", *starts)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(fields))
    outside = b""
    for tag in sorted(fields):
        head += struct.pack(order + "HHI", tag, fields[tag].kind, fields[tag].number)
        if len(raws[tag]) > 4:
            head += struct.pack(order + "I", outside_at + len(outside))
            outside += raws[tag]
        else:
            head += raws[tag].ljust(4, b"\0")
    return b"".join([head, bytes(4), outside, *pieces])
