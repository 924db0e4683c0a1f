"""Large pictures through a small network with strides: the answer against the whole picture's, and the memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from service.codecs.images import decode
from service.codecs.rows import open_rows
from service.runtime.model import Model
from service.settings import Settings
from tests.claims import relative_error
from tests.pictures import noise


def jpeg_of(width: int, height: int, rng: np.random.Generator) -> bytes:
    """A picture with texture everywhere, its brightness another at every place; written in strips."""
    import pyvips

    grain = pyvips.Image.new_from_memory(noise(200, 200, 3, rng).tobytes(), 200, 200, 3, "uchar")
    picture = grain.replicate(-(-width // 200), -(-height // 200)).crop(0, 0, width, height)
    places = pyvips.Image.xyz(width, height)
    shade = places[0] / (2 * width) + places[1] / (2 * height)
    data: bytes = (picture * shade).cast("uchar").copy(interpretation="srgb").jpegsave_buffer(Q=40)
    return data


def strided_network(rng: np.random.Generator) -> tuple[onnx.ModelProto, np.ndarray]:
    """Conv 5×5/2 → ReLU → max 3×3/2 → Conv 3×3/2 → ReLU (`features`) → mean over space → Gemm. Returns it and Gemm's weights."""
    gemm = rng.normal(size=(16, 5)).astype(np.float32)
    weights = {
        "w1": rng.normal(size=(8, 3, 5, 5)).astype(np.float32) / 8,
        "w2": rng.normal(size=(16, 8, 3, 3)).astype(np.float32) / 8,
        "gemm": gemm,
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["c1"], strides=[2, 2], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["features"]),
        helper.make_node("ReduceMean", ["features", "axes"], ["m"], keepdims=0),
        helper.make_node("Gemm", ["m", "gemm"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "strided",
        [helper.make_tensor_value_info("images", 1, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", 1, ["n", 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), gemm


def test_27_megapixels_tiled_are_what_they_are_whole(tmp_path: Path, rng: np.random.Generator) -> None:
    """6000×4500, the logits themselves. The whole picture's features are averaged in float64: a mean of 422 000 in float32,
    as ONNX Runtime has it, is worse than what it is to judge."""
    import onnxruntime

    network, gemm = strided_network(rng)
    folder = tmp_path / "strided" / "1"
    folder.mkdir(parents=True)
    onnx.save(network, folder / "model.onnx")
    (folder / "model.json").write_text('{"preprocessing": {"channels": "RGB", "scale": 0.00392157}}')
    network.graph.output[0].CopyFrom(helper.make_tensor_value_info("features", 1, ["n", 16, "y", "x"]))
    data = jpeg_of(6000, 4500, rng)
    model = Model("strided", "1", folder / "model.onnx", Settings(provider="cpu", max_canvas_pixels=2**20), "cpu")
    model.start()

    async def tiled() -> np.ndarray:
        rows = open_rows(data, channels="RGB", max_pixels=10**8, max_tiled_pixels=10**8)
        return model.scores(await model.infer_tiles(rows, 1e12))

    found = asyncio.run(tiled())
    model.stop()
    assert model.tiles is not None
    assert model.tiles.done > 20
    whole = decode(data, channels="RGB", max_pixels=10**8).transpose(2, 0, 1)[None].astype(np.float32)
    whole *= np.float32(0.00392157)
    features = onnxruntime.InferenceSession(network.SerializeToString()).run(["features"], {"images": whole})[0]
    expected = features.mean((2, 3), dtype=np.float64)[0] @ gemm.astype(np.float64)
    assert relative_error(found, expected) <= 2e-6


_SERVE = """
import asyncio, sys
from pathlib import Path
from service.codecs.rows import open_rows
from service.runtime.model import Model
from service.settings import Settings

def high_water():
    return 1024 * next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))

path, *files = map(Path, sys.argv[1:])
model = Model("strided", "1", path, Settings(provider="cpu", max_canvas_pixels=2**20, max_pixels=20_000_000), "cpu")
model.start()
for file in files:
    data = file.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    rows = open_rows(data, channels="RGB", max_pixels=20_000_000, max_tiled_pixels=2**31)
    answer = asyncio.run(model.infer_tiles(rows, 1e12))
    print(high_water() - before, *map(float, model.scores(answer)))
model.stop()
"""


def test_memory_is_that_of_a_strip(tmp_path: Path, rng: np.random.Generator) -> None:
    """12 000×9 000, 324 MB decoded: at most 200 MB more than a picture of 1100×1000 takes, in a process of its own.

    60 MB of it are the strip of max_pixels, 50 to 80 libvips' rows, 16 the file.
    """
    network, _ = strided_network(rng)
    folder = tmp_path / "strided" / "1"
    folder.mkdir(parents=True)
    onnx.save(network, folder / "model.onnx")
    (folder / "model.json").write_text('{"preprocessing": {"channels": "RGB", "scale": 0.00392157}}')
    small, large = tmp_path / "small.jpg", tmp_path / "large.jpg"
    small.write_bytes(jpeg_of(1100, 1000, rng))
    large.write_bytes(jpeg_of(12_000, 9_000, rng))
    command = [sys.executable, "-c", _SERVE, folder / "model.onnx", small, large]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    first, second = (float(line.split()[0]) for line in lines)
    assert second - first <= 200e6, f"{second / 1e6:.0f} MB after {first / 1e6:.0f} MB"
