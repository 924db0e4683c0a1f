"""What a request says besides the tensor: which axes, which regions, and how the answer is wanted. The same for every operator."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _listed(value: object) -> object:
    """Read a list that came in a query: `2,3`; a lone number stays one."""
    if isinstance(value, str) and "," in value:
        return [part.strip() for part in value.split(",")]
    return value


def _option(value: object) -> object:
    return None if isinstance(value, str) and value in {"none", "null"} else value


Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
Sizes = Annotated[Size | list[Size] | None, BeforeValidator(_listed)]
Pad = Annotated[int, Field(ge=0, le=2**31 - 1)]
Padding = Annotated[
    Pad | list[Pad | list[Pad]] | Literal["same", "valid"],
    BeforeValidator(_listed),
]
Grid = Annotated[Size | list[Annotated[Size | None, BeforeValidator(_option)]] | None, BeforeValidator(_listed)]


class RegionParameters(BaseModel):
    """Over which regions, of which axes, and what comes back."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    spatial: int | None = Field(
        None, ge=1, le=3, description="How many axes are pooled: 1, 2 or 3; by default 2, or 1 for a vector."
    )
    layout: Literal["channels_first", "channels_last"] = Field(
        "channels_first", description="Whether the channel axis stands before the pooled axes or after them."
    )
    kernel: Sizes = Field(None, description="Windows of this size, one number or one for each pooled axis.")
    stride: Sizes = Field(None, description="Steps of the windows; by default the kernel.")
    padding: Padding = Field(
        0,
        description="Cells added on both sides of each axis, at most half the kernel; [before, after] pairs; or TensorFlow's "
        "`same` and `valid`.",
    )
    dilation: Sizes = Field(None, description="Distance of a window's cells; by default 1.")
    ceil_mode: bool = Field(False, description="Keep the last, partial window (PyTorch's rule).")
    count_include_pad: bool = Field(False, description="Whether an average counts the padding as zeros.")
    divisor_override: int | None = Field(None, ge=1, le=2**31 - 1, description="What an average divides by.")
    output_size: Grid = Field(None, description="An adaptive grid of so many regions, one number or one for each axis.")
    levels: Sizes = Field(None, description="A spatial pyramid: adaptive grids of these sizes, one after the other.")
    strips: bool = Field(False, description="Every row and every column as a region, rows first.")
    boxes: Any = Field(
        None,
        description="Regions of interest: a tensor (K, 2·spatial) of x1, y1, x2, y2 in the coordinates of the input.",
    )
    spatial_scale: float = Field(1.0, gt=0, le=1e6, description="What boxes are multiplied by to be cells.")
    align: bool = Field(False, description="Boxes by bilinear samples (RoIAlign), for averages and sums.")
    sampling_ratio: int = Field(0, ge=0, le=64, description="Samples for each bin and axis with `align`; 0 adapts.")
    labels: Any = Field(
        None,
        description="Segments of any form: an integer tensor of the plane, −1 belongs to none; one answer for each label.",
    )
    segments: int | None = Field(
        None, ge=1, le=2**31 - 1, description="How many labels there are; by default the largest + 1."
    )
    mask: Any = Field(
        None,
        description="Valid positions of the plane, as booleans or weights; for each sample if it has leading axes too.",
    )
    groups: int | None = Field(
        None, ge=1, le=2**31 - 1, description="Pool across channels: as many groups of neighbours come out (maxout)."
    )
    nan: Literal["propagate", "omit", "reject"] = Field(
        "propagate", description="What NaN does: makes its regions NaN, does not count, or is refused."
    )
    return_indices: bool = Field(False, description="With max and min: where each came from, flat in its plane.")
    return_counts: bool = Field(False, description="How many cells each region has.")
