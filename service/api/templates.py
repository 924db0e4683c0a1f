"""JSON requests that differ in their tensor only: what stands around it is read once, and known by its bytes from then on.

A client that pools again and again sends the same members with other numbers. Reading those members anew cost more than
pooling sixteen numbers (10 of 17 µs).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import NamedTuple

from simdjson import Array, Parser

from service.api.tensors import Asked, Job
from service.codecs.tensors.document import parse
from service.codecs.tensors.dtypes import DType
from service.codecs.tensors.nested import read_array
from service.errors import Malformed

MAX_BODY = 2**13
"""Bytes of a body that is looked up: in a larger one the numbers are what costs."""

_MAX_TEMPLATES = 256

_MARKER = os.urandom(16).hex().encode()


class _Template(NamedTuple):
    job: Job
    dtype: DType


class Templates:
    """What requests asked, by the bytes before and behind their tensor.

    JSON is read from left to right: after the same bytes, where the value of the member `tensor` is due, any whole array
    leads to the same place, from where the same bytes mean the same. So nothing is guessed: a body that is known would be
    read to the same answer by `read_request`.
    """

    def __init__(self, *, max_elements: int) -> None:
        """Begin without any.

        Args:
            max_elements: of a tensor.
        """
        self._max_elements = max_elements
        self._known: OrderedDict[tuple[bytes, bytes], _Template] = OrderedDict()

    def read(self, body: bytes) -> Asked | None:
        """Read a request whose members were seen before; None where they were not, or where it is not JSON.

        Raises:
            InvalidTensor (422), PayloadTooLarge (413): as `read_request` would.
        """
        start, end = bounds(body)
        template = self._known.get((body[:start], body[end:]))
        if template is None:
            return None
        text = body[start:end]
        try:
            array = Parser().parse(text)
        except (ValueError, RuntimeError):
            return None  # `read_request` words what is wrong
        if not isinstance(array, Array):
            return None
        tensor = read_array(
            array, template.dtype, max_elements=self._max_elements, name="tensor", brackets=text.count(b"[")
        )
        return Asked(tensor, "nested", [template.job])

    def learn(self, body: bytes, asked: Asked) -> None:
        """Remember the members of a body that `read_request` has read to `asked`, if they are such as this is for."""
        if asked.form != "nested" or asked.many or asked.compare or asked.jobs[0].arrays:
            return
        start, end = bounds(body)
        before, behind = body[:start], body[end:]
        if not before or not holds(before, behind):
            return
        self._known[before, behind] = _Template(asked.jobs[0], asked.tensor.dtype)
        while len(self._known) > _MAX_TEMPLATES:
            self._known.popitem(last=False)


def bounds(body: bytes) -> tuple[int, int]:
    """Where the tensor of a body may begin and end; (0, 0) where it is not to be seen."""
    name = body.find(b'"tensor"')
    start = body.find(b"[", name) if name >= 0 else -1
    return (start, body.rfind(b"]") + 1) if start >= 0 else (0, 0)


def holds(before: bytes, behind: bytes) -> bool:
    """Whether what stands between is the value of the outermost object's `tensor`: a word that nobody can know tells."""
    try:
        members = parse(b'%b"%b"%b' % (before, _MARKER, behind), max_elements=1).members()
    except Malformed:
        return False  # more than one value stands between
    return members.get("tensor") == _MARKER.decode()
