"""TIFF: the first directory, read for the header and reduced to the tags that pixels need.

Nothing about other formats belongs here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from service.codecs.header import ORIENTATION_TAG, ImageHeader, displayed
from service.errors import InvalidImage

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF 6.0; the latter two BigTIFF

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _PLANAR = 256, 257, 258, 259, 262, 284
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
# TIFF 6.0 (and supplement 2 for 347): the tags that say where pixels are and what they mean. Pillow gets no others: it
# follows pointers to further directories and reads every tag's value, though a thousand tags may claim the same bytes.
_PIXEL_TAGS = frozenset({
    254, 255, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, 266, 273, 277, 278, 279, _PLANAR,
    292, 293, 317, 320, _TILE_WIDTH, _TILE_HEIGHT, 324, 325, 332, 338, 339, 347, 529, 530, 531, 532,
})  # fmt: skip
# None, three of CCITT, LZW, old and new JPEG, Deflate (two numbers), PackBits, Zstandard, WebP. Not LZMA, which takes as
# much memory as the file asks for.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32_946, 32_773, 50_000, 50_001})
_PRIVATE_TAG = 65_000  # TIFF 6.0, section 8: reusable range
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_MAX_VALUES = 1_000_000  # strips or tiles; each becomes a Python object


class _Layout(NamedTuple):
    order: str
    first_pointer: int
    pointer: str
    length: str  # of the directory, in entries
    entry: str
    inline: int  # bytes of value that an entry holds itself


def _layout(data: bytes) -> _Layout:
    order = "<" if data[:1] == b"I" else ">"
    if data[2:4] in {b"+\0", b"\0+"}:
        return _Layout(order, 8, order + "Q", order + "Q", order + "HHQ", 8)
    return _Layout(order, 4, order + "I", order + "H", order + "HHI", 4)


class _Entry(NamedTuple):
    tag: int
    position: int
    value: int | None  # of a tag with one integer, or the first of several
    kind: int = 0
    number: int = 0
    start: int = 0  # of the values
    size: int = 0  # of the values, in bytes


def _entries(data: bytes) -> tuple[_Layout, list[_Entry], int]:
    """Read the first directory, and the position of the pointer to the next."""
    layout = _layout(data)
    try:
        (directory,) = struct.unpack_from(layout.pointer, data, layout.first_pointer)
        (count,) = struct.unpack_from(layout.length, data, directory)
        first = directory + struct.calcsize(layout.length)
        size = struct.calcsize(layout.entry) + layout.inline
        if count > 65_535 or first + count * size + layout.inline > len(data):
            raise InvalidImage("TIFF: truncated within its first directory")
        entries = [_entry(data, layout, first + index * size) for index in range(count)]
    except (struct.error, OverflowError) as error:
        raise InvalidImage("TIFF: its first directory lies outside the data") from error
    known = [entry.tag for entry in entries if entry.tag in _PIXEL_TAGS]
    if len(set(known)) != len(known):  # readers differ on which counts: one would judge the size, another allocate
        raise InvalidImage("TIFF: a tag stands twice in its first directory")
    return layout, entries, first + count * size


def _entry(data: bytes, layout: _Layout, position: int) -> _Entry:
    tag, kind, count = struct.unpack_from(layout.entry, data, position)
    if tag not in _PIXEL_TAGS and tag != ORIENTATION_TAG:
        return _Entry(tag, position, None)
    size = _SIZES.get(kind, 0) * count
    start = position + struct.calcsize(layout.entry)
    if size > layout.inline:
        (start,) = struct.unpack_from(layout.pointer, data, start)
    if start + size > len(data):
        raise InvalidImage(f"TIFF: truncated, the value of tag {tag} lies outside the data")
    if count > _MAX_VALUES and kind not in {1, 2, 7}:
        raise InvalidImage(f"TIFF: expected at most {_MAX_VALUES} strips or tiles")
    if kind in _INTEGERS and count:
        (value,) = struct.unpack_from(layout.order + _INTEGERS[kind], data, start)
        return _Entry(tag, position, value, kind, count, start, size)
    return _Entry(tag, position, None, kind, count, start, size)


def read_header(data: bytes) -> ImageHeader:
    """Read size and orientation from the first directory.

    Raises:
        InvalidImage (422): a directory that is truncated, or names no size.
    """
    values = {entry.tag: entry.value for entry in _entries(data)[1]}
    orientation = values.get(ORIENTATION_TAG) or 1
    return displayed(
        "TIFF", values.get(_WIDTH) or 0, values.get(_HEIGHT) or 0, orientation if 1 <= orientation <= 8 else 1
    )


class Field(NamedTuple):
    """A tag that pixels need, with its values.

    Attributes:
        kind: of the values; TIFF 6.0, section 2.
        number: how many.
        raw: their bytes, in the file's order.
        integers: the values, where they are unsigned integers.
    """

    kind: int
    number: int
    raw: bytes
    integers: tuple[int, ...]


def read_fields(data: bytes) -> dict[int, Field]:
    """Read the tags of the first directory that pixels need, by number.

    Raises:
        InvalidImage (422): as `read_header`.
    """
    layout, entries, _ = _entries(data)
    fields = {}
    for entry in entries:
        if entry.tag in _PIXEL_TAGS:
            raw = data[entry.start : entry.start + entry.size]
            code = _INTEGERS.get(entry.kind, "")
            integers = struct.unpack(f"{layout.order}{entry.number}{code}", raw) if code else ()
            fields[entry.tag] = Field(entry.kind, entry.number, raw, integers)
    return fields


class Essence(NamedTuple):
    """A TIFF reduced to its first picture's pixels.

    Attributes:
        data: a TIFF of one directory that holds the pixels' tags only (so: no orientation).
        bits: bits a sample.
        white_is_zero: whether 0 is white; the caller is to invert samples of more than 8 bits, Pillow inverts others.
        planar: whether each channel is stored by itself.
        tile_pixels: pixels of one tile, 0 where there are none; a small picture can have an enormous tile.
    """

    data: bytes
    bits: int
    white_is_zero: bool
    planar: bool
    tile_pixels: int


def essence(data: bytes) -> Essence:
    """Leave out of the first directory what pixels do not need, and all other directories.

    Raises:
        InvalidImage (422): as `read_header`.
    """
    layout, entries, next_pointer = _entries(data)
    reduced = bytearray(data)
    values = {entry.tag: entry.value for entry in entries}
    if (values.get(_COMPRESSION) or 1) not in _COMPRESSIONS:
        raise InvalidImage(f"TIFF: compression {values[_COMPRESSION]} is not read")
    deep = (values.get(_BITS) or 1) > 8
    for entry in entries:
        if entry.tag not in _PIXEL_TAGS:
            # An entry cannot be taken out without moving the rest; a private one of a single byte says nothing.
            struct.pack_into(layout.entry, reduced, entry.position, _PRIVATE_TAG, 1, 1)
        elif entry.tag == _PHOTOMETRIC and entry.value == 0 and deep:
            # Pillow inverts 8 bits, of 16 it knows the little-endian kind and leaves it as it is: the caller inverts.
            struct.pack_into(layout.entry, reduced, entry.position, _PHOTOMETRIC, 3, 1)
            struct.pack_into(layout.order + "H", reduced, entry.position + struct.calcsize(layout.entry), 1)
    struct.pack_into(layout.pointer, reduced, next_pointer, 0)
    return Essence(
        bytes(reduced),
        values.get(_BITS) or 1,
        values.get(_PHOTOMETRIC) == 0,
        values.get(_PLANAR) == 2,
        (values.get(_TILE_WIDTH) or 0) * (values.get(_TILE_HEIGHT) or 0),
    )
