"""One request read by two processes: a lone client need not wait until one of them has parsed it all.

JSON is read from left to right. Where a text breaks off between two elements of a list, `]}` closes the list and the object around
it; if the last member of that is `tensor`, the break lies in the tensor, and what follows means what it means after `{"tensor":[`.
So nothing is guessed: if both halves are JSON and fit together, the whole would be read to the same members; and if not, it is
read as a whole, for what is to be said of it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from service.codecs.tensors.document import MAX_MEMBERS, MAX_VALUES, parse
from service.codecs.tensors.dtypes import MAX_DIMENSIONS
from service.codecs.tensors.members import Members, read_members
from service.errors import ServiceError
from service.reader.channel import Task
from service.reader.reader import Reader, ReaderEnded

MIN_BODY = 2**18
"""Bytes from which it pays: parsing them takes 0.4 ms, the hand-over 0.1."""

_OWN_SHARE = 0.48
"""Of the body; from there a break is looked for, so that one in the middle, as between two images, is found."""

_SEARCHED_SHARE = 0.25
"""Of the body, from there: halves that differ more are no use."""

_HEAD = 2**12
"""Bytes in which the tensor begins."""

_DEPTHS = 2
"""Lists within the tensor whose elements are parted: a batch's, or those of the one image of a batch."""

_NEAR = 2**16
"""Bytes that are searched first: most tensors have a place there."""

_START = re.compile(rb'"tensor"\s*:\s*((?:\[\s*)+)')
_DTYPE = re.compile(rb'"dtype"\s*:\s*"([a-z0-9]{1,8})"')

_NUMBERS = re.compile(rb"[0-9](,) ?[-0-9]")


class Halves(NamedTuple):
    """Two documents that were one.

    Attributes:
        first: with its end.
        opening: what the other one begins with.
        rest: what follows.
        axis: of the tensor, along which it is parted.
        said: names that stand in the opening and in the first half.
    """

    first: bytes
    opening: bytes
    rest: memoryview
    axis: int
    said: frozenset[str]


def part(body: bytes | memoryview) -> Halves | None:
    """Part a request between two elements of its tensor, near the middle; None where no place is found."""
    found = _START.search(body, 0, _HEAD)
    if found is None or found.end() >= _HEAD:
        return None
    view = memoryview(body)
    rank = found[1].count(b"[")
    if rank > MAX_DIMENSIONS:
        return None
    dtype = _DTYPE.search(body, 0, found.start())  # a hint; what it comes to is compared in the end
    said = b'"dtype":"%b",' % dtype[1] if dtype else b""
    for axis in range(min(rank, _DEPTHS)):
        comma = _comma(view, rank - axis)
        if comma:
            first = b"".join((view[:comma], b"]" * (axis + 1), b"}"))
            opening = b'{%b"tensor":%b' % (said, b"[" * (axis + 1))
            names = frozenset({"tensor", "dtype"} if dtype else {"tensor"})
            return Halves(first, opening, view[comma + 1 :], axis, names)
    return None


def _comma(view: memoryview, rank: int) -> int:
    """Find a comma between two elements of a list of so many dimensions, not before the first one; 0 where there is none.

    Only as most programs write it, for this must not take long whatever the text is.
    """
    start = int(len(view) * _OWN_SHARE)
    end = start + int(len(view) * _SEARCHED_SHARE)
    for until in (min(start + _NEAR, end), end):
        text = bytes(view[start:until])
        if rank == 1:
            found = _NUMBERS.search(text)
            return start + found.start(1) if found else 0
        for comma in (b",", b", "):
            place = text.find(b"%b%b%b" % (b"]" * (rank - 1), comma, b"[" * (rank - 1)))
            if place >= 0:
                return start + place + rank - 1
    return 0


def joined(first: Members, rest: Members, halves: Halves, *, max_elements: int) -> Members | None:
    """Put together what was read of the halves; None where they do not fit, or pass a limit together."""
    some, others, axis = first.tensor, rest.tensor, halves.axis
    own = set(rest.names) - halves.said
    fits = (
        first.names[-1] == "tensor"
        and own.isdisjoint(first.names)
        and len(own) + len(first.names) <= MAX_MEMBERS
        and sum(map(_values, (*first.parameters.values(), *rest.parameters.values()))) <= MAX_VALUES
        and first.form == rest.form == "nested"
        and some.dtype == others.dtype
        and some.ndim == others.ndim
        and some.size + others.size <= max_elements
        and some.shape[:axis] == others.shape[:axis] == (1,) * axis
        and some.shape[axis + 1 :] == others.shape[axis + 1 :]
    )
    if not fits:
        return None
    return Members(
        names=(*first.names, *(name for name in rest.names if name in own)),
        tensor=np.concatenate((some, others), axis),
        form="nested",
        parameters=first.parameters | rest.parameters,
        arrays=first.arrays | rest.arrays,
        ops=rest.ops if first.ops is None else first.ops,
    )


def _values(value: object) -> int:
    """Count the values within a value, as Document.members does."""
    if isinstance(value, dict):
        value = list(value.values())
    return len(value) + sum(map(_values, value)) if isinstance(value, list) else 0


async def read_halves(body: bytes | memoryview, reader: Reader, slot: int) -> Members | None:
    """Read one half, while the other process reads the other.

    Args:
        body: of at most slots.MAX_BODY bytes.
        reader: the other process.
        slot: of the reader, taken; it is given back.

    Returns:
        None where the body must be read as a whole, be it because something is amiss with it.

    Raises:
        NeedsWalk: one of the halves does.
    """
    halves = part(body)
    if halves is None:
        reader.give(slot)
        return None
    coming = reader.begin(slot, Task.PLAIN_MEMBERS, halves.opening, halves.rest)
    try:
        document = parse(halves.first, max_elements=reader.limits.elements)
        document.walk = False
        first = read_members(document, reader.names)
        rest = await coming
        assert isinstance(rest, Members)  # by its task
        return joined(first, rest, halves, max_elements=reader.limits.elements)
    except (ServiceError, ReaderEnded):
        return None
    finally:
        if not coming.cancel() and not coming.cancelled():
            coming.exception()  # nobody else asks for it
