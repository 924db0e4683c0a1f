"""ONNX Runtime: the only file of the service that imports it. One session, its provider, and proof of where its nodes run.

A session is not guarded by a lock: one thread owns it (`batcher`), and nobody else calls `run`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from service.cores import available_cores

Provider = Literal["cpu", "cuda"]

log = logging.getLogger(__name__)

_PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

# fmt: off
_SHAPE_ARITHMETIC = frozenset({
    "Shape", "Size", "Gather", "Concat", "Slice", "Unsqueeze", "Squeeze", "Cast", "Range", "Constant", "ConstantOfShape",
    "Identity", "Reshape", "Equal", "Where", "Add", "Sub", "Mul", "Div", "Floor", "Ceil", "Mod",
    "Min", "Max", "ReduceProd",
})
# fmt: on
"""Ops that ONNX Runtime keeps on the CPU by design when they work on shapes; a few bytes each."""

_DEVICE_NODES = ("/dev/nvidiactl", "/dev/dxg")
"""What the NVIDIA driver shows of itself on Linux and on WSL; in a container too, once a device is reserved for it."""


class ProviderError(Exception):
    """The device asked for is not there, or does not run the model's nodes."""


def resolve_provider(requested: Literal["auto", "cpu", "cuda"]) -> Provider:
    """Decide where models run; `auto` is CUDA where the runtime has it and a device answers, else CPU.

    Raises:
        ProviderError: `cuda` was asked for and this runtime was built without it.
    """
    if requested == "cpu":
        return "cpu"
    available = _PROVIDERS["cuda"] in ort.get_available_providers()
    if available:
        ort.preload_dlls()  # the CUDA and cuDNN libraries of the wheels that onnxruntime-gpu[cuda,cudnn] brings
    if requested == "cuda":
        if not available:
            raise ProviderError(
                f"provider=cuda was asked for, but this onnxruntime has only {ort.get_available_providers()}; "
                "install the extra `gpu` instead of `cpu`, or set provider=cpu"
            )
        return "cuda"
    return "cuda" if available and any(Path(node).exists() for node in _DEVICE_NODES) else "cpu"


@cache
def operator_versions() -> Mapping[tuple[str, str], Sequence[int]]:
    """Give what operators ONNX Runtime has: by domain (empty: ONNX's own) and name, the opsets that (re)defined them.

    An opset that took an operator away is negative.
    """
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for schema in ort.capi.onnxruntime_pybind11_state.get_all_operator_schema():
        found[schema.domain, schema.name].append(-schema.since_version if schema.deprecated else schema.since_version)
    return dict(found)


_WRONG = ["Pad_Fusion"]
"""Optimizers of ONNX Runtime that change answers. This one takes a Pad of zeros into the pooling behind it, where a maximum does
not see the zeros, and an average that rounds its size up (ceil_mode) counts other cells."""


def _options(provider: Provider, threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; warnings about shape nodes on the CPU are judged in _check_assignment
    # A GPU session needs one host thread; a CPU session takes all cores, so that a lone request has the whole machine.
    options.intra_op_num_threads = 1 if provider == "cuda" else threads or available_cores()
    options.enable_mem_pattern = (
        False  # its key collides between sizes and its map never shrinks: wrong for dynamic shapes
    )
    # Workers spin between the nodes of one run, which is fast, and stop when the run ends: the cores are the decoder's then.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if provider == "cuda":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


class Session:
    """A loaded graph.

    Attributes:
        provider: where it really runs.
        device: the same, for people: `cpu`, `cuda:0`.
        inputs: names of the graph's inputs.
        outputs: names of the graph's outputs, in order.
        declared: for each of them its type in ONNX Runtime's words, such as `tensor(float)`, and its shape; None is dynamic.
    """

    def __init__(self, model: bytes, *, provider: Provider, device_id: int = 0, threads: int = 0) -> None:
        """Build the session and prove its provider.

        Args:
            model: the serialised ONNX model.
            provider: where it must run.
            device_id: CUDA device.
            threads: threads of one run on the CPU; 0 is all cores.

        Raises:
            ProviderError: it would run elsewhere than asked for.
            ValueError: ONNX Runtime refuses the graph; says why.
        """
        configured: list[tuple[str, dict[str, str]]] = [(_PROVIDERS["cpu"], {})]
        if provider == "cuda":
            cuda = {
                "device_id": str(device_id),
                "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE searches anew for every first-seen size
                "arena_extend_strategy": "kSameAsRequested",
                "use_tf32": "0",  # float32 means float32: answers equal the CPU's
            }
            configured.insert(0, (_PROVIDERS["cuda"], cuda))
        try:
            self._session = ort.InferenceSession(
                model, _options(provider, threads), providers=configured, disabled_optimizers=_WRONG
            )
        except Exception as error:  # onnxruntime's exceptions have no common root of their own
            raise ValueError(f"ONNX Runtime refuses the graph: {error}") from error
        self._session.disable_fallback()
        self._direct = self._session._sess.run  # InferenceSession.run checks names in Python first: 4 µs
        self._shrinking = ort.RunOptions()
        arenas = "cpu:0" if provider == "cpu" else f"cpu:0;gpu:{device_id}"
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", arenas)
        self.provider = provider
        self.device = "cpu" if provider == "cpu" else f"cuda:{device_id}"
        self.inputs: Sequence[str] = [value.name for value in self._session.get_inputs()]
        outputs = self._session.get_outputs()
        self.outputs: Sequence[str] = [output.name for output in outputs]
        self.declared: Sequence[tuple[str, tuple[int | None, ...]]] = [
            (output.type, tuple(size if isinstance(size, int) else None for size in output.shape)) for output in outputs
        ]
        self._check_assignment()

    def _check_assignment(self) -> None:
        active = self._session.get_providers()
        if _PROVIDERS[self.provider] not in active:
            raise ProviderError(f"provider={self.provider} was asked for, but ONNX Runtime runs this model on {active}")
        if self.provider == "cpu":
            return
        strays = [
            f"{node.name or '?'} ({node.op_type})"
            for part in self._session.get_provider_graph_assignment_info()
            if part.ep_name != _PROVIDERS["cuda"]
            for node in part.get_nodes()
            if node.op_type not in _SHAPE_ARITHMETIC
        ]
        if strays:
            raise ProviderError(
                f"provider=cuda was asked for, but {len(strays)} nodes have no CUDA kernel and would run on the CPU: "
                f"{', '.join(strays[:8])}; export with opset 20 or 21 (MaxPool has none from 22 on), or set provider=cpu"
            )

    def run(self, feeds: Mapping[str, np.ndarray], *, shrink: bool = False) -> list[np.ndarray]:
        """Run the graph once; blocks, with the GIL released.

        Args:
            feeds: arrays by input name.
            shrink: give the memory back after the run. The arena keeps what a run needed for ever; after one huge picture that
                is gigabytes.

        Returns:
            The outputs in the order of `outputs`.
        """
        outputs: list[np.ndarray] = self._direct(self.outputs, dict(feeds), self._shrinking if shrink else None)
        return outputs

    def run_one(self, x: np.ndarray) -> np.ndarray:
        """Run a graph of one input `x` and one output, on the shortest way: what `run` costs beside matters to a few numbers."""
        y: np.ndarray = self._direct(self.outputs, {"x": x}, None)[0]
        return y

    def bind(self, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
        """Tie a graph of one input and one output to arrays that stay: half of a small run is spent on finding and making them.

        Args:
            x: read by each run.
            y: written by each run.

        Returns:
            What runs; not from two threads at once.
        """
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self.inputs[0], ort.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output(self.outputs[0], ort.OrtValue.ortvalue_from_numpy(y))
        run, bound = self._session._sess.run_with_iobinding, binding._iobinding  # the method around it takes 0.6 µs

        def run_bound(_kept: tuple[np.ndarray, np.ndarray] = (x, y)) -> None:  # OrtValues do not own their memory
            run(bound, None)

        return run_bound
