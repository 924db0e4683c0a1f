"""What runs cost, as measured: seconds a run, an image and a pixel, for the plain and for the masked graph of one model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a run of one graph: run_s + images · image_s + pixels · pixel_s.

    Attributes:
        run_s: of any run: calls, weights fetched from memory, kernels launched.
        image_s: of each image on top of its pixels: maps so small that kernels do not fill.
        pixel_s: of each pixel, wasted or not.
    """

    run_s: float
    image_s: float
    pixel_s: float

    def of(self, images: int, pixels: float) -> float:
        """Seconds of a run of so many images with so many pixels altogether."""
        return self.run_s + images * self.image_s + pixels * self.pixel_s

    @classmethod
    def fit(cls, side: int, images: int, one_s: float, many_s: float, large_s: float) -> Cost:
        """Find the three numbers from three runs; noise does not make one negative.

        Args:
            side: pixels; of the square images of the first two runs. Those of the third are twice as high and wide.
            images: of the second and the third run, > 1; the first has one.
            one_s: seconds of the first run, > 0.
            many_s: seconds of the second run.
            large_s: seconds of the third run.
        """
        area = side * side
        pixel_s = max(0.0, large_s - many_s) / (3 * images * area)
        each_s = max(0.0, many_s - one_s) / (images - 1)  # an image and its pixels
        pixel_s = min(pixel_s, each_s / area)
        return cls(max(0.0, one_s - each_s), each_s - pixel_s * area, pixel_s)


@dataclass(frozen=True, slots=True)
class Costs:
    """Both graphs of one model.

    Attributes:
        plain: images of one size.
        ragged: images on canvases; None where there is no masked graph, or it never pays.
        switch_s: seconds that a run takes longer where the one before it had another shape: 0 on the CPU; on CUDA
            the plans of all convolutions (microsoft/onnxruntime#23006).
    """

    plain: Cost
    ragged: Cost | None = None
    switch_s: float = 0.0

    def alone(self, pixels: float) -> float:
        """Seconds of one image by itself, of a size other than the one before it."""
        return self.plain.of(1, pixels) + self.switch_s
