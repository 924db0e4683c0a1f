"""A choice: which of the waiting images run together, and in an array of what shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, int, int]
"""Places, height, width of an array of images."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch to be run.

    Attributes:
        members: places in the queue, ascending.
        shape: of the array that they run in; it may have more places than members.
        ragged: whether they lie on a canvas, or are all of the array's size.
    """

    members: Sequence[int]
    shape: Shape
    ragged: bool
