"""Reading of sizes and per-axis integers; everything that is later counted with int64 is bounded here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

from graphs.operators.regions.block import RegionError

LARGEST = 2**31 - 1
"""Of any single size, kernel, stride or padding: no product of two of them overflows int64."""

MAX_REGIONS = 2**26
"""Of one system, where the caller sets no limit of its own."""


def checked_plane(plane: Sequence[int]) -> tuple[int, ...]:
    """Sizes of 1 to 3 pooled axes, none of them empty.

    Raises:
        RegionError: another number of axes, an axis without cells, or 2⁶² cells and more.
    """
    sizes = tuple(int(size) for size in plane)
    if not 1 <= len(sizes) <= 3:
        raise RegionError(f"expected a plane of 1 to 3 axes, got {len(sizes)}")
    if min(sizes) < 1:
        raise RegionError(f"expected at least one cell on every axis of the plane, got {_sizes(sizes)}")
    if math.prod(sizes) >= 2**62 or max(sizes) > LARGEST:
        raise RegionError(f"expected a plane of axes up to {LARGEST}, got {_sizes(sizes)}")
    return sizes


def integer(name: str, value: object, lowest: int, largest: int = LARGEST) -> int:
    """One integer from `lowest` to `largest`.

    Raises:
        RegionError: anything else, True and 2.0 too.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise RegionError(f"{name}: expected an integer, got {type(value).__name__}")
    number = int(value)
    if not lowest <= number <= largest:
        raise RegionError(f"{name}: expected {lowest} to {largest}, got {shown(number)}")
    return number


def per_axis(name: str, value: object, axes: int, lowest: int) -> tuple[int, ...]:
    """One integer for all axes, or one for each.

    Raises:
        RegionError: another number of values, or one below `lowest` or above `LARGEST`.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        return (integer(name, value, lowest),) * axes
    if len(value) != axes:
        raise RegionError(f"{name}: expected one number or {axes}, one per pooled axis, got {len(value)}")
    return tuple(integer(name, item, lowest) for item in value)


def limited(regions: int, max_regions: int) -> None:
    """Refuse more regions than the caller allows.

    Raises:
        RegionError: more.
    """
    if regions > max_regions:
        raise RegionError(f"expected at most {max_regions} regions, these parameters make {shown(regions)}")


def shown(number: int) -> str:
    """An integer in a message, short also where it has hundreds of digits."""
    return str(number) if abs(number) < 10**20 else f"about 10^{int(math.log10(abs(number)))}"


def _sizes(sizes: tuple[int, ...]) -> str:
    return "×".join(shown(size) for size in sizes)
