"""GET /v2/models/…/config: Triton's model configuration, as far as it means something here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from service.api.documents import error_responses
from service.api.oip import schemas
from service.api.oip.configured import is_single
from service.api.oip.served import Served, find
from service.api.oip.signatures import Signature, inputs_of, outputs_of
from service.api.state import State, get_state
from service.errors import ModelNotFound
from service.runtime.configuration import Configuration

router = APIRouter(tags=["Open Inference Protocol"])

_FOUND = error_responses(ModelNotFound) | schemas.OTHER

_FORMATS = {None: "FORMAT_NONE", True: "FORMAT_NHWC", False: "FORMAT_NCHW"}


class InputConfiguration(BaseModel):
    """An input, without its batch axis."""

    name: str
    data_type: str = Field(examples=["TYPE_UINT8"])
    format: str = Field(examples=["FORMAT_NHWC"])
    dims: list[int]
    optional: bool = Field(description="A request has one of the inputs that are.")


class OutputConfiguration(BaseModel):
    """An output, without its batch axis."""

    name: str
    data_type: str = Field(examples=["TYPE_FP32"])
    dims: list[int]
    label_filename: str = Field(description="Of its config.pbtxt; all labels are in the model's card, at /v1/models.")


class InstanceGroup(BaseModel):
    """What runs it."""

    name: str
    kind: Literal["KIND_CPU", "KIND_GPU"]
    count: int
    gpus: list[int]


class ModelConfiguration(BaseModel):
    """A model's configuration, by the names of Triton's model_config.proto."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: int = Field(description="0: there is no batch axis.")
    input: list[InputConfiguration]
    output: list[OutputConfiguration]
    instance_group: list[InstanceGroup]
    dynamic_batching: dict[str, Any]
    default_model_filename: str
    parameters: dict[str, Any]


def _type(signature: Signature) -> str:
    return "TYPE_STRING" if signature.datatype == "BYTES" else f"TYPE_{signature.datatype}"


def _dims(signature: Signature) -> list[int]:
    return list(signature.shape[1:] or (1,)) if signature.batched else list(signature.shape)


def _configuration(state: State, served: Served) -> ModelConfiguration:
    device = "cpu" if state.repository.provider == "cpu" else "gpu"
    inputs, outputs = inputs_of(served), outputs_of(served)
    model = served.model
    configuration = (model.configuration if model else None) or Configuration(Path(served.name))
    most = 0 if model is None or is_single(model) else state.settings.max_images
    most = min(configuration.max_batch_size or most, most)
    labels = {tensor.name: tensor.label_filename for tensor in configuration.outputs}
    group = InstanceGroup(
        name=f"{served.name}_0",
        kind="KIND_CPU" if device == "cpu" else "KIND_GPU",
        count=1,
        gpus=[] if device == "cpu" else [state.settings.device_id],
    )
    return ModelConfiguration(
        name=served.name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        version_policy=state.repository.policy(served.name).document(),
        max_batch_size=most,
        input=[
            InputConfiguration(
                name=one.name,
                data_type=_type(one),
                format=_FORMATS[one.channels_last],
                dims=_dims(one),
                optional=len(inputs) > 1,
            )
            for one in inputs
        ],
        output=[
            OutputConfiguration(
                name=one.name, data_type=_type(one), dims=_dims(one), label_filename=labels.get(one.name, "")
            )
            for one in outputs
        ],
        instance_group=[group],
        dynamic_batching={"preferred_batch_size": [], "max_queue_delay_microseconds": 0} if served.model else {},
        default_model_filename=configuration.file_name if served.model else "",
        parameters={},
    )


@router.get("/v2/models/{name}/config", summary="A model's configuration", responses=_FOUND)
async def model_configuration(name: str, state: Annotated[State, Depends(get_state)]) -> ModelConfiguration:
    """By Triton's names."""
    return _configuration(state, find(state, name, None))


@router.get("/v2/models/{name}/versions/{version}/config", summary="A version's configuration", responses=_FOUND)
async def version_configuration(
    name: str, version: str, state: Annotated[State, Depends(get_state)]
) -> ModelConfiguration:
    """By Triton's names."""
    return _configuration(state, find(state, name, version))
