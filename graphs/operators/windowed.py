"""Poolings that choose their own regions or weight them by position: a kernel with weights, in place of another statistic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from graphs.operators.extremes import write_max
from graphs.operators.means import write_avg, write_sum
from graphs.operators.operator import FEED, Operator, Parameters, Reference
from graphs.operators.regions import centred
from graphs.operators.regions.adaptive import adaptive, pyramid
from graphs.operators.regions.binomial import binomial
from graphs.operators.regions.block import RegionError, Regions
from graphs.operators.regions.fractional import fractional
from graphs.operators.regions.haar import haar
from graphs.operators.regions.prior import prior
from graphs.operators.regions.windows import windows
from graphs.operators.request import RegionParameters, Sizes
from graphs.operators.systems import geometry_of

_ANY_PLACE = {"spatial", "layout", "nan", "return_counts", "return_indices", "mask"}
"""Parameters of a request that say nothing about where regions lie."""


def _numbers(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) and "," in value else value


Positive = Annotated[float, Field(gt=0, le=1e9)]
Positives = Annotated[Positive | list[Positive] | None, BeforeValidator(_numbers)]
Shares = Annotated[list[float] | None, BeforeValidator(_numbers)]


class Gaussian(Parameters):
    """Parameters of `gaussian`."""

    sigma: Positives = Field(
        None,
        description="Of the Gaussian profile, in cells, for all pooled axes or for each; by default a quarter of the region.",
        json_schema_extra=FEED,
    )
    profile: Literal["gaussian", "inverse_distance", "raised_cosine"] = Field(
        "gaussian", description="How weights fall with the distance from the region's centre."
    )


class Blur(Parameters):
    """Parameters of `blur`."""

    size: int = Field(3, ge=1, le=64, description="Taps on each axis: 3 is [1, 2, 1] / 4.", json_schema_extra=FEED)
    stride: Sizes = Field(2, description="Steps, one number or one for each pooled axis.", json_schema_extra=FEED)
    border: Literal["reflect", "zero", "replicate"] = Field("reflect", description="What lies beyond the edge.")


class FractionalMax(Parameters):
    """Parameters of `fractional_max`."""

    kernel: Sizes = Field(2, description="Windows of this size, overlapping.", json_schema_extra=FEED)
    disjoint: bool = Field(False, description="Each region ends where the next begins; the kernel is not used.")
    output_size: Sizes = Field(None, description="Regions on all pooled axes or on each.", json_schema_extra=FEED)
    output_ratio: Positives = Field(
        None, description="In place of it: the share of the plane's size, below 1.", json_schema_extra=FEED
    )
    samples: Shares = Field(
        None,
        description="One number from 0 to below 1 for each pooled axis: where the steps begin.",
        json_schema_extra=FEED,
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Draws them where they are not given.", json_schema_extra=FEED)


class Spoc(Parameters):
    """Parameters of `spoc`."""

    sigma: Positives = Field(
        None,
        description="Of the prior, in cells; by default a sixth of the plane's shortest axis.",
        json_schema_extra=FEED,
    )


def refuse(request: RegionParameters, operator: str, *taken: str) -> None:
    """Refuse ways of naming regions that an operator with its own does not take."""
    for name in sorted(request.model_fields_set - _ANY_PLACE - set(taken)):
        takes = f"only {', '.join(taken)} and what is its own" if taken else "only what is its own"
        raise RegionError(f"{name}: {operator} brings its own regions and takes {takes}")


def _gaussian(plane: tuple[int, ...], request: RegionParameters, parameters: Gaussian) -> Regions:
    taken = ("kernel", "stride", "padding", "dilation", "ceil_mode", "output_size", "levels")
    refuse(request, "gaussian", *taken)
    if parameters.sigma is not None and parameters.profile != "gaussian":
        raise RegionError(f"sigma: belongs to the gaussian profile, got {parameters.profile}")
    profile = {
        "gaussian": lambda: centred.gaussian(parameters.sigma),
        "inverse_distance": centred.inverse_distance,
        "raised_cosine": centred.raised_cosine,
    }[parameters.profile]()
    if request.kernel is not None:
        return centred.centred(windows(geometry_of(plane, request)), profile)
    if request.output_size is not None:
        return centred.centred(adaptive(plane, request.output_size), profile)
    if request.levels is not None:
        levels = request.levels if isinstance(request.levels, list) else [request.levels]
        return centred.centred(pyramid(plane, levels), profile)
    return prior(plane, profile)


def _blur(plane: tuple[int, ...], request: RegionParameters, parameters: Blur) -> Regions:
    refuse(request, "blur")
    return binomial(
        plane, parameters.size, 2 if parameters.stride is None else parameters.stride, border=parameters.border
    )


def _fractional(plane: tuple[int, ...], request: RegionParameters, parameters: FractionalMax) -> Regions:
    refuse(request, "fractional_max")
    return fractional(
        plane,
        None if parameters.disjoint else parameters.kernel,
        output_size=parameters.output_size,
        output_ratio=parameters.output_ratio,
        samples=parameters.samples,
        seed=parameters.seed,
    )


def _spoc(plane: tuple[int, ...], request: RegionParameters, parameters: Spoc) -> Regions:
    refuse(request, "spoc")
    return prior(plane, centred.gaussian(min(plane) / 6 if parameters.sigma is None else parameters.sigma))


def _wavelet(plane: tuple[int, ...], request: RegionParameters, parameters: Any) -> Regions:
    refuse(request, "wavelet")
    return haar(plane)


OPERATORS = (
    Operator(
        name="gaussian",
        family="windowed",
        summary="An average in which cells weigh less the further they lie from the centre of their region.",
        formula=r"\frac{\sum_i w_i x_i}{\sum_i w_i},\quad w_i = e^{-\|\delta_i\|^2 / 2\sigma^2}",
        keeps="the level near the centre, without the aliasing of a box",
        loses="peaks, and what lies at the region's edge",
        write=write_avg,
        parameters=Gaussian,
        references=(
            Reference(
                "Goodfellow, Bengio, Courville", 2016, "Deep learning, section 9.3 (a weighted average by distance)"
            ),
            Reference("Burt, Adelson", 1983, "The Laplacian pyramid as a compact image code"),
        ),
        linear=True,
        mergeable="both sums, with the weights of the whole region",
        regions=_gaussian,
    ),
    Operator(
        name="blur",
        family="windowed",
        summary="BlurPool: a binomial filter before every stride-th value is taken.",
        formula=r"\sum_i b_i x_i,\quad b = \bigotimes_a \tfrac{1}{2^{m-1}}\tbinom{m-1}{j}",
        keeps="low frequencies: a shift of the input shifts the answer nearly as much",
        loses="high frequencies",
        write=write_avg,
        parameters=Blur,
        references=(Reference("Zhang", 2019, "Making convolutional networks shift-invariant again", "1904.11486"),),
        linear=True,
        regions=_blur,
    ),
    Operator(
        name="fractional_max",
        family="windowed",
        summary="The maximum over windows at pseudorandom steps, so that a plane shrinks by any ratio.",
        formula=r"\max_{i \in W_{j}} x_i,\quad W_j \text{ begins at } \lfloor (j + u)\alpha \rfloor - \lfloor u\alpha \rfloor",
        keeps="the strongest responses, at any reduction and not only at whole factors",
        loses="every other value",
        write=write_max,
        parameters=FractionalMax,
        references=(Reference("Graham", 2014, "Fractional max-pooling", "1412.6071"),),
        answers="same",
        mergeable="the maximum",
        regions=_fractional,
    ),
    Operator(
        name="spoc",
        family="windowed",
        summary="SPoC: the sum over the plane with a Gaussian prior for its centre; normalising and whitening are the caller's.",
        formula=r"\sum_i e^{-\|\delta_i\|^2 / 2\sigma^2} x_i,\quad \sigma = \tfrac{1}{6}\min(H, W)",
        keeps="what stands in the middle, where photographers put it",
        loses="the surroundings",
        write=write_sum,
        parameters=Spoc,
        references=(
            Reference(
                "Babenko, Lempitsky", 2015, "Aggregating deep convolutional features for image retrieval", "1510.07493"
            ),
        ),
        linear=True,
        mergeable="the sum, with the weights of the whole plane",
        regions=_spoc,
    ),
    Operator(
        name="wavelet",
        family="windowed",
        summary="The approximation of a Haar wavelet transform: half the size on every axis, the energy of what is smooth kept.",
        formula=r"2^{-d/2} \sum_{i \in 2 \times \dots \times 2} x_i",
        keeps="low frequencies, and with the details that are dropped an orthonormal basis",
        loses="the details: differences of neighbours",
        write=write_sum,
        references=(Reference("Williams, Li", 2018, "Wavelet pooling for convolutional neural networks"),),
        linear=True,
        mergeable="tiles cut at even positions need no state",
        regions=_wavelet,
    ),
)
