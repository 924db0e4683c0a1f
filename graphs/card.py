"""What a model says of itself: its card, kept as JSON in the ONNX file's own metadata (key `poolserve.card`).

Nothing about how a model is served (device, batching, limits) belongs here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field, model_validator

METADATA_KEY = "poolserve.card"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Preprocessing(_Strict):
    """How pixels (uint8, 0…255) become the network's input: y = (x · scale − mean) / std, per channel.

    A network whose input is uint8 already (N,H,W,C) does this itself and needs none of it.
    """

    channels: Literal["RGB", "BGR", "L"] = "RGB"
    """Channel order of the network's input; `L` is one grey channel (ITU-R BT.601 luma)."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1 / 255
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = (0.0,)
    """In units of the scaled pixel; one number, or one a channel in the network's channel order."""
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = (1.0,)

    @model_validator(mode="after")
    def _numbers_fit_channels(self) -> Preprocessing:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in {1, self.channel_count}:
                raise ValueError(
                    f"{name} needs 1 or {self.channel_count} numbers for {self.channels}, got {len(values)}"
                )
        return self

    @property
    def channel_count(self) -> int:
        """Channels of the network's input: 1 or 3."""
        return 1 if self.channels == "L" else 3


class ModelCard(_Strict):
    """A classifier's card.

    Sizes are in pixels. Unknown members are an error, so that a typing mistake in a hand-written model.json is found at load.
    """

    card_version: Literal[1] = 1
    kind: Literal["classifier"] = "classifier"
    description: str = ""
    labels: tuple[str, ...] = ()
    """Class names by index; empty: the index itself is the label."""
    preprocessing: Preprocessing = Preprocessing()
    input: str | None = None
    """Name of the graph's image input; may be left out where it has one input only."""
    output: str | None = None
    """Name of the output (N,K) that is classified; may be left out: `logits` if there is one, else the first."""
    embedding: str | None = None
    """Name of the output (N,D) before the classifier, if the graph gives it."""
    features: str | None = None
    """Name of the value (N,C,h,w) that is pooled; may be left out: graphs/anysize/features.py has the rule that finds it."""
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    """From output to probability: softmax (one label), sigmoid (any number of labels), none (it is one already)."""
    min_height: Annotated[int, Field(ge=1)] = 1
    min_width: Annotated[int, Field(ge=1)] = 1
    head: dict[str, Any] = {}
    """The pooling head's configuration as the export wrote it, such as {"pooling": "gem", "p": 3.0}."""
    backbone: str = ""
    license: str = ""
    training: dict[str, Any] = {}
    """Free facts on where the weights came from: data, seed, command, measured accuracy."""

    @classmethod
    def read(cls, model: ir.Model) -> ModelCard | None:
        """Read the card out of a model's metadata; None where it has none.

        Raises:
            ValueError: the metadata is there and is not a valid card (pydantic's ValidationError).
        """
        text = model.metadata_props.get(METADATA_KEY)
        return None if text is None else cls.model_validate_json(text)

    def write(self, model: ir.Model) -> None:
        """Store the card in the model's metadata, in place of any that is there."""
        model.metadata_props[METADATA_KEY] = self.model_dump_json()
