"""Model repositories as Triton's documentation has them: config.pbtxt, files of labels, numeric versions of ONNX models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

DENSENET = """\
# The model of Triton's quick start: its graph has a batch axis of 1, its clients see none.
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 32, 32 ]
    reshape { shape: [ 1, 3, 32, 32 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 5 ]
    reshape { shape: [ 1, 5, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
"""

BATCHED = """\
name: "resnet"
backend: "onnxruntime"          # in place of platform
max_batch_size: 8
default_model_filename: "resnet50.onnx"
input { name: "input" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] }
output < name: "output" data_type: TYPE_FP32 dims: 5 label_filename: "labels/imagenet.txt" >
version_policy: { specific { versions: [ 1, 3 ] } }
instance_group [ { count: 2, kind: KIND_GPU, gpus: [ 0, 1 ], rate_limiter { resources [ { name: "R1" global: true count: 4 } ] } } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
optimization { execution_accelerators { gpu_execution_accelerator : [ {
  name : "tensorrt"
  parameters { key: "precision_mode" value: "FP16" }
} ] } }
parameters { key: "session.intra_op_thread_pool_size" value: { string_value: "1" } }
model_warmup [ { name : "warm" inputs { key: "input" value: { data_type: TYPE_FP32 dims: [3, 64, 64] zero_data: true } } } ]
a_field_of_next_year: { of: [ 1.5e3, "a\\"b", -7 ] ; [type.example.com/c.d]: <> }
"""

LABELS = ("ant", "bee", "cat", "dog", "elk")


@dataclass(frozen=True)
class Net:
    """Conv 3×3 → Relu → mean over space → Conv 1×1, float32, with a float64 oracle: (3,H,W) → (5)."""

    first: np.ndarray  # (4,3,3,3)
    last: np.ndarray  # (5,4,1,1)

    @classmethod
    def random(cls, rng: np.random.Generator) -> Net:
        return cls(
            rng.normal(size=(4, 3, 3, 3)).astype(np.float32), rng.normal(size=(5, 4, 1, 1)).astype(np.float32) * 4
        )

    def logits(self, x: np.ndarray) -> np.ndarray:
        h, w = x.shape[1:]
        padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
        patches = np.stack([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=1)  # (3,9,H,W)
        features = np.maximum(np.einsum("ock,ckhw->ohw", self.first.astype(np.float64).reshape(4, 3, 9), patches), 0)
        return np.asarray(self.last.astype(np.float64)[:, :, 0, 0] @ features.mean((1, 2)))

    def to_onnx(
        self, input_name: str, output_name: str, shape: list[int | str], *, flat: bool = False, softmax: bool = False
    ) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Conv", [input_name, "first"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["m"]),
            helper.make_node("Conv", ["m", "last"], ["scores"]),  # (N,5,1,1)
        ]
        result = "scores"
        if flat:
            nodes.append(helper.make_node("Flatten", [result], [result := "flat"]))
        if softmax:
            nodes.append(helper.make_node("Softmax", [result], [result := "likely"], axis=1))
        nodes[-1].output[0] = output_name
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info(input_name, 1, shape)],
            [helper.make_tensor_value_info(output_name, 1, [shape[0], 5] + ([] if flat else [1, 1]))],
            [numpy_helper.from_array(self.first, "first"), numpy_helper.from_array(self.last, "last")],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_densenet(folder: Path, net: Net) -> Path:
    """Write the quick start's model, small, into a repository. Returns the model's folder."""
    own = folder / "densenet_onnx"
    (own / "1").mkdir(parents=True)
    (own / "config.pbtxt").write_text(DENSENET)
    (own / "densenet_labels.txt").write_text("\n".join(LABELS) + "\n")
    onnx.save(net.to_onnx("data_0", "fc6_1", [1, 3, 32, 32]), own / "1" / "model.onnx")
    return own


def write_resnet(folder: Path, nets: dict[str, Net]) -> Path:
    """Write a model with several versions, of which its policy serves 1 and 3. Returns its folder."""
    own = folder / "resnet"
    (own / "labels").mkdir(parents=True)
    (own / "config.pbtxt").write_text(BATCHED)
    (own / "labels" / "imagenet.txt").write_text("\r\n".join(LABELS))
    for version, net in nets.items():
        (own / version).mkdir()
        onnx.save(net.to_onnx("input", "output", ["n", 3, "h", "w"], flat=True), own / version / "resnet50.onnx")
    return own
