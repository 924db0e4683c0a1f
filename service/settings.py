"""Settings: each with its default, bounds and reason; from flags, else the environment, else the default.

Read once at start by `__main__` and passed in; nothing else may look at the environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "POOLSERVE_"


class SettingsError(Exception):
    """A setting is unknown or out of its bounds; the message has one line for each."""


class Settings(BaseSettings):
    """Everything that can be configured. Frozen: what was checked at start stays true."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; the container sets 0.0.0.0.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 lets the system choose a free one.")
    models: Annotated[str, BeforeValidator(str)] = Field(
        "models",
        min_length=1,
        description="The model repository: a folder, or a URL such as s3://bucket/models; in it <name>/<version>/model.onnx.",
    )
    model_control: Literal["none", "poll", "explicit"] = Field(
        "none",
        description="When what is served changes. none: never. poll: when files change. explicit: when /v2 says so.",
    )
    poll_s: float = Field(
        15.0,
        gt=0,
        le=86_400,
        description="How often poll looks; a version is loaded when two looks have seen the same files.",
    )
    version_policy: str = Field(
        "latest",
        pattern=r"^(latest(:[1-9][0-9]{0,8})?|all|specific:[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*)$",
        description="Versions that are served: latest, latest:<count>, all, specific:<version>,…; a config.pbtxt comes first.",
    )
    load_models: str = Field(
        "", description="With explicit: models loaded at start, as in digits,digits-gap; * is all of them."
    )
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where models run. auto: CUDA if a device is there, else CPU. cuda: CUDA or do not start."
    )
    device_id: int = Field(0, ge=0, le=63, description="CUDA device.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes on the one port, each with its own models; more than 1 pays for models of about a millisecond.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads of one session; 0: all cores, so that a lone request has the whole machine.",
    )
    decode_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads that decode images; 0: as many as cores. On a GPU host decoding is the limit.",
    )
    json_reader: bool = Field(
        True,
        description="Whether a second process reads JSON of 64 kB to 16 MiB, too: half of a body, or all of it where this one is"
        " busy, or would be for long. It takes 50 MB, starts when first wanted, and only where there are more cores than workers.",
    )
    skip_broken_models: bool = Field(
        False,
        description="Serve the other models if one cannot be loaded. Off: say which and exit, so that it is noticed.",
    )
    timeout_s: float = Field(
        30.0, gt=0, le=3600, description="Longest an answer may take; X-Request-Timeout can ask for less. Then 504."
    )
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Longest a request's headers may take to come, and its body, so that slow senders do not pile up. Then 408."
        " Longest a client may take nothing of its answer. Then the connection ends.",
    )
    drain_s: float = Field(
        1.0,
        ge=0,
        le=600,
        description="After SIGTERM: how long to go on answering with ready at 503, for balancers to see it.",
    )
    max_body_bytes: int = Field(
        2**28,
        ge=1,
        le=2**40,
        description="Largest body, counted as it streams in; a float16 tensor (64,256,56,56) has 103 MB. Bounds memory. Then 413.",
    )
    max_tensor_elements: int = Field(
        2**28,
        ge=1,
        le=2**40,
        description="Elements of one tensor, in or out, by its shape, before it is made: bounds memory. Then 413.",
    )
    max_pixels: int = Field(
        50_000_000,
        ge=1,
        le=2**40,
        description="Largest image, by its header, before decoding: stops decompression bombs. Then 413."
        " Of one that is tiled, the pixels that are held at once.",
    )
    max_canvas_pixels: int = Field(
        3 * 2**20,
        ge=2**10,
        le=2**40,
        description="Larger images are cut into tiles of at most this, where the model allows it: bounds memory, about 250 bytes a"
        " pixel for a ResNet.",
    )
    max_tiled_pixels: int = Field(
        2**31,
        ge=1,
        le=2**40,
        description="Largest image that is tiled, by its header. Its memory is that of a strip, its time is bounded by timeout_s."
        " Then 413.",
    )
    max_images: int = Field(64, ge=1, le=10_000, description="Images in one request. Then 413.")
    max_queue: int = Field(
        4096,
        ge=1,
        le=10**6,
        description="Requests waiting for one model, whatever their time: bounds memory. Then 429.",
    )
    max_batch_pixels: int = Field(
        2**20,
        ge=1,
        le=2**40,
        description="Pixels run at once; bounds memory and how long a newcomer waits for the batch before it.",
    )
    max_pool_cells: int = Field(
        2**34,
        ge=1,
        le=2**50,
        description="Cells that the regions of one pooling request read, all in all: bounds its time. Then 413.",
    )
    max_sessions: int = Field(
        128, ge=1, le=10**5, description="Compiled pooling graphs kept; the least recently used goes first."
    )
    access_log: bool = Field(
        False, description="A log line for each request; costs about a tenth of small requests' rate."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )


@dataclass(frozen=True)
class SettingRow:
    """One line of the settings table: what README shows and `--print-settings` prints."""

    name: str
    value: str
    source: str
    bounds: str
    reason: str


def bounds(field: FieldInfo) -> str:
    """Say a field's range in words: `0 … 65535`, `auto | cpu | cuda`, or its type."""
    choices = getattr(field.annotation, "__args__", None)
    if choices:
        return " | ".join(str(choice) for choice in choices)
    low = high = ""
    for limit in field.metadata:
        if isinstance(limit, Ge):
            low = f"{limit.ge}"
        elif isinstance(limit, Gt):
            low = f"> {limit.gt}"
        elif isinstance(limit, Le):
            high = f"{limit.le}"
    if low and high:
        return f"{low} … {high}"
    if field.annotation is bool:
        return "true | false"
    return "text"


def load_settings(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Make the settings from flags (by field name) and the environment, and check all of it.

    Raises:
        SettingsError: an unknown POOLSERVE_ variable (with the nearest name) or a value out of bounds; names all at once.
    """
    known = {(PREFIX + name).upper() for name in Settings.model_fields}
    problems = []
    for variable in sorted(
        name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known
    ):
        nearest = difflib.get_close_matches(variable.upper(), known, n=1, cutoff=0)
        problems.append(f"{variable}: unknown setting; the nearest is {nearest[0]}")
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            problems.append(
                f"{detail['loc'][0]}: {detail['msg']}; bounds: {bounds(Settings.model_fields[str(detail['loc'][0])])}"
            )
        raise SettingsError("\n".join(problems)) from None
    if settings.workers > 1 and settings.port == 0:
        problems.append("port: must be chosen where workers share it, got 0")
    if settings.workers > 1 and settings.model_control == "explicit":
        problems.append("workers: expected 1 with model_control=explicit, as a request to load reaches one process")
    if settings.load_models and settings.model_control != "explicit":
        problems.append("load_models: only with model_control=explicit; otherwise all are loaded")
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def settings_table(
    settings: Settings, flags: Mapping[str, Any], environment: Mapping[str, str]
) -> Sequence[SettingRow]:
    """List every setting with its value and where the value came from, in the order of their definition."""
    given = {name.upper() for name in environment}
    rows = []
    for name, field in Settings.model_fields.items():
        source = "flag" if name in flags else "environment" if (PREFIX + name).upper() in given else "default"
        value = getattr(settings, name)
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        rows.append(SettingRow(name, shown, source, bounds(field), field.description or ""))
    return rows
