"""Second-order statistics: how channels occur together, instead of how strong each is."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor, emit
from graphs.operators.functions import (
    flatten,
    l2_normalize,
    matmul,
    nonzero,
    signed_sqrt,
    solve,
    transpose,
    upper_triangle,
    widen,
)
from graphs.operators.operator import FEED, Operator, Parameters, Reference


class Bilinear(Parameters):
    """Parameters of bilinear pooling."""

    normalize: bool = Field(True, description="Signed square root of each entry, then the l2 norm made 1.")


class CompactBilinear(Bilinear):
    """Parameters of compact bilinear pooling."""

    first: Any = Field(description="Tensor A (D,C), of random signs.", json_schema_extra=FEED)
    second: Any = Field(description="Tensor B (D,C), of other random signs.", json_schema_extra=FEED)


class Covariance(Parameters):
    """Parameters of covariance pooling."""

    iterations: int = Field(5, ge=1, le=20, description="Steps of Newton and Schulz towards the square root.")
    upper: bool = Field(
        True, description="Only the upper triangle with the diagonal, row by row: C(C+1)/2 numbers; false: all C²."
    )


class GeneralizedMax(Parameters):
    """Parameters of generalised max pooling."""

    regularization: float = Field(1.0, gt=0, le=1e12, description="λ.", json_schema_extra=FEED)
    iterations: int = Field(24, ge=1, le=64, description="Steps of conjugate gradients; C of them solve exactly.")


def write_bilinear(cells: Cells, parameters: Bilinear) -> Tensor:
    """Σ w·x xᵀ / Σ w, flattened row-major: (N,r,C²)."""
    x, scale = _scaled(cells, cells.values)
    products = matmul(cells.weigh(x), transpose(x, 0, 1, 3, 2)) / cells.size()
    flat = flatten(products)
    if parameters.normalize:
        return l2_normalize(signed_sqrt(flat))  # of a multiple the same, so the scale need not come back
    scale = flatten(scale)
    return flat * scale * scale


def write_compact_bilinear(cells: Cells, parameters: CompactBilinear) -> Tensor:
    """Σ w·(Ax)⊙(Bx) / (√D Σ w): random Maclaurin features of the bilinear kernel: (N,r,D)."""
    x, scale = _scaled(cells, cells.values)
    first, second = (widen(cells.parameter(name, "D", "C"), 4) for name in ("first", "second"))
    width = first.length(2).cast(x.graph.dtype)
    sketch = flatten(cells.mean(matmul(first, x) * matmul(second, x)) / width.sqrt())
    if parameters.normalize:
        return l2_normalize(signed_sqrt(sketch))
    scale = flatten(scale)
    return sketch * scale * scale


def write_covariance(cells: Cells, parameters: Covariance) -> Tensor:
    """The square root of the covariance by Newton and Schulz, Y ← ½Y(3I − ZY), Z ← ½(3I − ZY)Z."""
    centred, scale = _scaled(cells, cells.values - cells.mean(cells.values))
    covariance = matmul(cells.weigh(centred), transpose(centred, 0, 1, 3, 2)) / cells.size()
    identity = emit("Equal", (covariance.positions(2), covariance.positions(3))).cast(covariance.graph.dtype)
    trace = (covariance * identity).sum(3).sum(2)
    y = covariance / nonzero(trace)
    step = 1.5 * identity - 0.5 * y  # Z is I at first
    y, z = matmul(y, step), step
    for _ in range(parameters.iterations - 1):
        step = 1.5 * identity - 0.5 * matmul(z, y)
        y, z = matmul(y, step), matmul(step, z)
    y = y * trace.sqrt() * scale
    return upper_triangle(y) if parameters.upper else flatten(y)


def write_generalized_max(cells: Cells, parameters: GeneralizedMax) -> Tensor:
    """(Σ w·x xᵀ + λI)⁻¹ Σ w·x: (N,r,C)."""
    x, scale = _scaled(cells, cells.values)
    root = cells.parameter("regularization").sqrt() / scale
    weighed = cells.weigh(x)
    gram = matmul(weighed, transpose(x, 0, 1, 3, 2))
    identity = emit("Equal", (gram.positions(2), gram.positions(3))).cast(gram.graph.dtype)
    return flatten(solve(gram + identity * (root * root), weighed.sum(), parameters.iterations) / scale)


def _scaled(cells: Cells, x: Tensor) -> tuple[Tensor, Tensor]:
    """Divide each region by its largest magnitude, so that squares neither overflow nor vanish, and 0 where a cell is absent.

    What is divided by is a constant to gradients: whoever brings it back gets the derivative exactly.
    """
    present = cells.fill(x, 0.0)
    scale = nonzero(present.detach().abs().max(3).max(2))
    return present / scale, scale


OPERATORS = (
    Operator(
        name="bilinear",
        family="second order",
        summary="How strongly each pair of channels occurs together: C² numbers for each region.",
        formula=r"\ell_2\!\left(\operatorname{sign}(B)\sqrt{|B|}\right),\quad B=\frac{1}{n}\sum_i x_i x_i^\top",
        keeps="which channels are active in the same cells",
        loses="where; with `normalize` the overall strength",
        write=write_bilinear,
        parameters=Bilinear,
        references=(
            Reference(
                "Lin, RoyChowdhury, Maji", 2015, "Bilinear CNN models for fine-grained visual recognition", "1504.07889"
            ),
        ),
        joint=True,
        mergeable="the sum of x xᵀ and the count",
        answer=lambda channels, parameters: channels**2,
    ),
    Operator(
        name="compact_bilinear",
        family="second order",
        summary="Bilinear pooling in D numbers instead of C², by random projections given as `first` and `second`.",
        formula=r"\ell_2\!\left(\operatorname{sign}(s)\sqrt{|s|}\right),\quad s=\frac{1}{n\sqrt D}\sum_i (A x_i)\odot(B x_i)",
        keeps="inner products of bilinear features, in expectation, where the projections are random signs",
        loses="the single pairs; the error falls with 1/√D",
        write=write_compact_bilinear,
        parameters=CompactBilinear,
        references=(
            Reference("Gao, Beijbom, Zhang, Darrell", 2016, "Compact bilinear pooling", "1511.06062"),
            Reference("Kar, Karnick", 2012, "Random feature maps for dot product kernels", "1201.6530"),
        ),
        joint=True,
        mergeable="the sum of (Ax)⊙(Bx) and the count",
        learnable=True,
        weights={"first": ("D", "C"), "second": ("D", "C")},
        answer=lambda channels, parameters: len(parameters.first),
        beside=lambda channels, parameters: 2 * len(parameters.first),
    ),
    Operator(
        name="covariance",
        family="second order",
        summary="The square root of the covariance of the channels (iSQRT-COV), by iteration instead of eigenvalues.",
        formula=r"\Sigma^{1/2},\quad \Sigma=\frac{1}{n}\sum_i (x_i-\mu)(x_i-\mu)^\top",
        keeps="how channels vary together, on the scale of the values",
        loses="the mean; small eigenvalues, until there are enough iterations",
        write=write_covariance,
        parameters=Covariance,
        references=(
            Reference(
                "Li, Xie, Wang, Zuo",
                2017,
                "Is second-order information helpful for large-scale visual recognition?",
                "1703.08050",
            ),
            Reference(
                "Li, Xie, Wang, Gao",
                2018,
                "Towards faster training of global covariance pooling networks by iterative matrix square root normalization",
                "1712.01034",
            ),
        ),
        joint=True,
        mergeable="count, mean and the centred sum of x xᵀ",
        answer=lambda channels, parameters: channels**2,
    ),
    Operator(
        name="generalized_max",
        family="second order",
        summary="The vector whose inner product with every cell is nearest to 1: rare cells count as much as frequent ones.",
        formula=r"\xi=\left(\sum_i x_i x_i^\top+\lambda I\right)^{-1}\sum_i x_i",
        keeps="rare but strong patterns, as a maximum does, for any encoding",
        loses="how often a pattern occurs; towards λ → ∞ it becomes the sum",
        write=write_generalized_max,
        parameters=GeneralizedMax,
        references=(Reference("Murray, Perronnin", 2014, "Generalized max pooling", "1406.0312"),),
        joint=True,
        mergeable="the sums of x xᵀ and of x",
        answer=lambda channels, parameters: channels**2,  # of the matrix that is solved for
    ),
)
