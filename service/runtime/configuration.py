"""config.pbtxt, the configuration of a model in a Triton repository: what of it means something here; the rest is passed over.

Names, numbers and meanings of the fields are those of Triton's model_config.proto (ModelConfig, ModelInput, ModelOutput,
ModelVersionPolicy). Protobuf's own reader takes every form that Triton takes: comments, `[]` or repeated fields, `{}` or `<>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format

from service.runtime.broken import BrokenModel
from service.runtime.inside import read_inside
from service.runtime.policy import VersionPolicy

FILE_NAME = "config.pbtxt"

_MAX_BYTES = 2**20
"""Of a configuration; real ones have a kilobyte."""

_PLATFORMS = {"", "onnxruntime_onnx"}
_BACKENDS = {"", "onnxruntime"}

# fmt: off
_TYPES = [
    "INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "STRING",
    "BF16",
]
# fmt: on
_FORMATS = ["FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"]

_LIST_OF_MESSAGES = re.compile(
    r"""(?P<other>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\#[^\n]*)  # what is quoted, comments
    |(?P<name>\b[A-Za-z_]\w*)\s?(?P<rest>\s*\[)(?=(?:\s|\#[^\n]*)*[{<\]])""",
    re.VERBOSE,
)
"""A field's name, no colon, and a list: `instance_group [ { … } ]`, as Triton's documentation writes it."""


@dataclass(frozen=True)
class Tensor:
    """An input or output as clients see it.

    Attributes:
        name: in the graph.
        data_type: such as `TYPE_FP32`.
        dims: its shape; without the batch axis where `max_batch_size` > 0. -1 is any size.
        format: of an input: `FORMAT_NONE`, `FORMAT_NHWC` or `FORMAT_NCHW`.
        label_filename: of an output: a file in the model's folder with one class name a line; empty where there is none.
        reshape: the shape that the graph has in place of `dims`; None where it is the same.
    """

    name: str
    data_type: str = "TYPE_INVALID"
    dims: tuple[int, ...] = ()
    format: str = "FORMAT_NONE"
    label_filename: str = ""
    reshape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Configuration:
    """What is used of a model's configuration.

    Attributes:
        folder: of the model; files of labels lie in it.
        max_batch_size: images of one run at most; 0: requests have no batch axis.
        file_name: of the ONNX file in each version's folder.
        inputs: as configured; none where Triton would find them out.
        outputs: the same.
        version_policy: None where it says nothing.
    """

    folder: Path
    max_batch_size: int = 0
    file_name: str = "model.onnx"
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    version_policy: VersionPolicy | None = None


def read_configuration(folder: Path) -> Configuration | None:
    """Read a model's config.pbtxt.

    Args:
        folder: of the model.

    Returns:
        None where there is none.

    Raises:
        BrokenModel: it cannot be read (with line and column), or asks for what is not served here.
    """
    path = folder / FILE_NAME
    data = read_inside(folder, FILE_NAME, _MAX_BYTES)
    if data is None:
        return None
    try:
        message = text_format.Parse(_with_colons(data.decode()), _message_class()(), allow_unknown_field=True)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()  # none, where a field is passed over
        where = FILE_NAME if line is None else f"{FILE_NAME}:{line}:{column}"
        said = re.sub(r"^[0-9]+:[0-9]+ : ", "", str(error)).rpartition("': ")[2][
            :200
        ]  # without the line that it is about
        raise BrokenModel(f"{where}: not a readable configuration: {said}", path) from error
    except UnicodeDecodeError as error:
        before = data[: error.start]
        where = f"{FILE_NAME}:{before.count(10) + 1}:{error.start - before.rfind(10)}"
        raise BrokenModel(f"{where}: expected UTF-8", path) from error
    except ValueError as error:  # of a number that its type does not hold
        raise BrokenModel(f"{FILE_NAME}: not a readable configuration: {str(error)[:200]}", path) from error
    except RecursionError as error:
        raise BrokenModel(f"{FILE_NAME}: nested too deeply", path) from error
    return _checked(message, folder, FILE_NAME)


def _with_colons(text: str) -> str:
    """Put a colon before every list of messages: without one protobuf's reader passes over no list that it does not know."""
    return _LIST_OF_MESSAGES.sub(lambda found: found["other"] or f"{found['name']}:{found['rest']}", text)


def configuration_of_json(text: str, folder: Path) -> Configuration:
    """Read a configuration that is given as JSON, as Triton's load request has it.

    Args:
        text: the JSON.
        folder: of the model that it is for.

    Raises:
        BrokenModel: it cannot be read, or asks for what is not served here.
    """
    if not text.lstrip(" \t\r\n").startswith("{"):  # protobuf's reader takes an empty array for a message of defaults
        raise BrokenModel(
            "config: not a readable configuration: expected an object as JSON, got something else", folder
        )
    try:
        message = json_format.Parse(text, _message_class()(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise BrokenModel(f"config: not a readable configuration: {str(error)[:300]}", folder) from error
    return _checked(message, folder, "config")


def _checked(message: Any, folder: Path, said: str) -> Configuration:
    """Check what it says. `said` names it in errors."""

    def broken(reason: str) -> BrokenModel:
        return BrokenModel(f"{said}: {reason}", folder / FILE_NAME)

    if message.platform not in _PLATFORMS or message.backend not in _BACKENDS:
        asked = f"platform {message.platform!r}, backend {message.backend!r}"
        raise broken(f"expected platform 'onnxruntime_onnx' or backend 'onnxruntime', got {asked[:200]}")
    if message.name not in {"", folder.name}:
        raise broken(f"name: expected that of its folder, {folder.name!r}, got {message.name[:128]!r}")
    if message.max_batch_size < 0:
        raise broken(f"max_batch_size: expected 0 or more, got {message.max_batch_size}")
    file_name = message.default_model_filename or "model.onnx"
    if file_name in {".", ".."} or "/" in file_name or "\0" in file_name:
        raise broken(
            f"default_model_filename: expected the name of a file in the version's folder, got {file_name[:128]!r}"
        )
    for tensor in [*message.input, *message.output]:  # protobuf takes any number for a name of these
        if not 0 <= tensor.data_type < len(_TYPES) or not 0 <= getattr(tensor, "format", 0) < len(_FORMATS):
            raise broken(f"{tensor.name[:128]!r}: expected a data_type and a format of Triton's")
    for output in message.output:
        labels = PurePosixPath(output.label_filename)
        if labels.is_absolute() or ".." in labels.parts or "\0" in output.label_filename:
            raise broken(f"label_filename: expected a file in the model's folder, got {output.label_filename[:128]!r}")
    try:
        policy = _policy(message.version_policy) if message.HasField("version_policy") else None
    except ValueError as error:
        raise broken(f"version_policy: {error}") from error
    inputs = tuple(_tensor(one, format=_FORMATS[one.format]) for one in message.input)
    outputs = tuple(_tensor(one, label_filename=one.label_filename) for one in message.output)
    return Configuration(folder, message.max_batch_size, file_name, inputs, outputs, policy)


def _tensor(message: Any, **rest: str) -> Tensor:
    reshape = tuple(message.reshape.shape) if message.HasField("reshape") else None
    return Tensor(message.name, f"TYPE_{_TYPES[message.data_type]}", tuple(message.dims), reshape=reshape, **rest)


def _policy(message: Any) -> VersionPolicy:
    chosen = message.WhichOneof("policy_choice")
    if chosen == "all":
        return VersionPolicy.all()
    if chosen == "specific":
        return VersionPolicy.specific(message.specific.versions)
    return VersionPolicy.latest(message.latest.num_versions or 1)


@cache
def _message_class() -> Callable[[], Any]:
    """Make ModelConfig with the fields that are used, in a pool of its own: nobody else's model_config.proto is in the way."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="poolserve/model_config.proto", package="inference", syntax="proto3")
    for name, values in (("DataType", [f"TYPE_{name}" for name in _TYPES]), ("Format", _FORMATS)):
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)

    def add(message: str, *fields: tuple[str, int, str], oneof: str = "") -> None:
        """Add a message of fields (name, number, type); a type that begins with `*` is repeated."""
        descriptor = file.message_type.add(name=message)
        if oneof:
            descriptor.oneof_decl.add(name=oneof)
        for name, number, kind in fields:
            label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            field = descriptor.field.add(name=name, number=number, label=label)
            scalar = f"TYPE_{kind.lstrip('*').upper()}"
            if scalar in kinds.Type.DESCRIPTOR.values_by_name:
                field.type = kinds.Type.Value(scalar)
            else:
                field.type_name = f".inference.{kind.lstrip('*')}"
                field.type = kinds.TYPE_ENUM if kind in {"DataType", "Format"} else kinds.TYPE_MESSAGE
            if oneof:
                field.oneof_index = 0

    tensor = ("name", 1, "string"), ("data_type", 2, "DataType"), ("reshape", 5, "Reshape")
    add("Reshape", ("shape", 1, "*int64"))
    add("ModelInput", *tensor, ("format", 3, "Format"), ("dims", 4, "*int64"))
    add("ModelOutput", *tensor, ("dims", 3, "*int64"), ("label_filename", 4, "string"))
    add("Latest", ("num_versions", 1, "uint32"))
    add("All")
    add("Specific", ("versions", 1, "*int64"))
    choices = ("latest", 1, "Latest"), ("all", 2, "All"), ("specific", 3, "Specific")
    add("ModelVersionPolicy", *choices, oneof="policy_choice")
    add(
        "ModelConfig",
        ("name", 1, "string"),
        ("platform", 2, "string"),
        ("version_policy", 3, "ModelVersionPolicy"),
        ("max_batch_size", 4, "int32"),
        ("input", 5, "*ModelInput"),
        ("output", 6, "*ModelOutput"),
        ("default_model_filename", 8, "string"),
        ("backend", 17, "string"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: Callable[[], Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    return found
