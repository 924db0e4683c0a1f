"""Where the pooled axes, the channels and everything else are in a tensor: to rows of planes, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphs.operators.request import RegionParameters
from service.errors import InvalidTensor


@dataclass(frozen=True)
class Layout:
    """How a tensor's axes are read.

    Attributes:
        shape: the tensor's.
        lead: sizes of the axes before the plane, the channels last among them; () for a lone plane.
        plane: sizes of the pooled axes.
        channels_last: the channel axis stands after the plane in the tensor.
        across: the pooled axis is the channel axis itself (`groups`), here: its place.
    """

    shape: tuple[int, ...]
    lead: tuple[int, ...]
    plane: tuple[int, ...]
    channels_last: bool = False
    across: int | None = None

    @property
    def rows(self) -> int:
        """B: planes in the tensor."""
        return math.prod(self.lead)

    @property
    def moves(self) -> bool:
        """Whether axes change places on the way."""
        return self.across is not None or self.channels_last

    def to_rows(self, x: np.ndarray) -> np.ndarray:
        """View, or where axes must move copy, the tensor as (B, L)."""
        if self.across is not None:
            x = np.moveaxis(x, self.across, -1)
        elif self.channels_last:
            x = np.moveaxis(x, -1, -1 - len(self.plane))
        return np.ascontiguousarray(x).reshape(self.rows, math.prod(self.plane))

    def from_rows(self, y: np.ndarray, lead: tuple[int, ...], regions: tuple[int, ...]) -> np.ndarray:
        """Give an answer of rows (…) its axes: `lead`, whose last is the channels, and in place of the plane the regions."""
        y = y.reshape((*lead, *regions))
        if self.across is not None:
            return np.ascontiguousarray(np.moveaxis(y, -1, self.across))
        if self.channels_last and lead:
            return np.ascontiguousarray(np.moveaxis(y, len(lead) - 1, -1))
        return y


def layout_of(shape: tuple[int, ...], request: RegionParameters) -> Layout:
    """Find the axes.

    Raises:
        InvalidTensor: 422; too few axes, or an axis without cells that would be pooled.
    """
    rank = len(shape)
    last = request.layout == "channels_last"
    if request.groups is not None:
        spatial = request.spatial if request.spatial is not None else max(0, min(2, rank - 2 + (rank == 3)))
        place = rank - 1 if last else rank - 1 - spatial
        if place < 0:
            raise InvalidTensor(f"expected a channel axis before {spatial} pooled axes, got the shape {list(shape)}")
        channels = shape[place]
        if channels == 0 or channels % request.groups:
            raise InvalidTensor(f"groups: expected a divisor of the {channels} channels, got {request.groups}")
        lead = tuple(size for axis, size in enumerate(shape) if axis != place)
        return Layout(shape, lead, (channels,), across=place)
    spatial = request.spatial if request.spatial is not None else min(2, max(rank, 1))
    if rank < spatial + last:
        wanted = f"{spatial} pooled axes" + (" and the channels after them" if last else "")
        raise InvalidTensor(f"expected a tensor with {wanted}, got the shape {list(shape)}")
    if last:
        lead, plane = (*shape[: rank - spatial - 1], shape[-1]), shape[rank - spatial - 1 : -1]
    else:
        lead, plane = shape[: rank - spatial], shape[rank - spatial :]
    if 0 in plane:
        raise InvalidTensor(f"expected at least one cell on each pooled axis, got the plane {list(plane)}")
    return Layout(shape, lead, plane, channels_last=last)
