"""Grouping: which of the waiting images run together, and on what canvas, by what runs were measured to cost (costs.py).

Nobody starves: the oldest image is in the first batch, or in one that follows soon. Nothing here runs anything or knows what an
image shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.runtime.choice import Choice
from service.runtime.costs import Costs
from service.runtime.partition import partition, spread
from service.runtime.shapes import Shapes

WINDOW = 2048
"""Images that are looked at, the oldest. Who comes later waits until they have run, so it is no longer than choosing well asks."""


class Grouping:
    """Plans batches for one model. For one thread.

    Attributes:
        keeps_shapes: whether a batch must run in the shape that was planned, though some of its images have left.
    """

    def __init__(self, costs: Costs | None, max_pixels: int, max_images: int | None = None, *, lanes: int = 1) -> None:
        """Begin.

        Args:
            costs: as measured; None: equal sizes go together, and nothing else.
            max_pixels: of an array; an image that has more goes alone.
            max_images: of a batch, where the graph fixes it.
            lanes: batches that run side by side; few images are spread over them.
        """
        self._costs = costs
        self._max_pixels = max_pixels
        self._max_images = max_images
        self._lanes = lanes
        self.keeps_shapes = costs is not None and costs.switch_s > 0
        self._shapes = Shapes(costs, max_pixels) if costs is not None and self.keeps_shapes else None

    def plan(self, sizes: Sequence[tuple[int, int]]) -> Sequence[Choice]:
        """Plan the next batches.

        Args:
            sizes: height and width of each image that waits, in pixels, the oldest first; at least one, at most WINDOW.

        Returns:
            At least one, in the order of running. Images that are in none are asked about again, with who has come by then.
        """
        if self._shapes is not None:
            return [self._shapes.choose(sizes)]
        return spread(partition(sizes, self._costs, self._max_pixels, self._max_images), self._lanes)
