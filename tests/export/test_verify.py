"""Verification: what differs from its network is found, named, and leaves no file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import export.verify
from export.network import Network
from export.verify import (
    TOLERANCE,
    Comparison,
    VerificationError,
    relative_error,
    unseen_shapes,
    verify,
    write_verified,
)
from graphs.card import METADATA_KEY, ModelCard, Preprocessing
from tests.export.trunk import Trunk, tiny_network

CARD = ModelCard(labels=("a", "b", "c", "d"))


class Frozen(Trunk):
    """Pools adaptively to 2×2, which the exporter turns into windows of the traced size, without a word."""

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(super().forward(x), 2)


class Forgetful(Trunk):
    """Decides by the picture's height, which the exporter cannot see: it keeps the branch that it traced."""

    def forward(self, x: Tensor) -> Tensor:
        features = super().forward(x)
        return features if torch.compiler.is_compiling() or x.shape[2] < 200 else 1.001 * features


@pytest.mark.parametrize("backbone", [Frozen, Forgetful])
@pytest.mark.parametrize("before", [None, b"an older model"])
def test_conversion_that_is_wrong_at_another_size_leaves_no_file(
    backbone: type[Trunk], before: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "model" / "1" / "model.onnx"
    if before is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(before)
    with pytest.raises(VerificationError, match=r"(?s)(logits|embedding|fails) at \(N,C,H,W\) = "):
        write_verified(Network(backbone(), {"pooling": "gap"}, 4), CARD, path)
    assert [file.name for file in path.parent.iterdir()] == ([] if before is None else ["model.onnx"])
    assert before is None or path.read_bytes() == before


def test_interrupted_verification_leaves_no_file(tmp_path: Path) -> None:
    def interrupt(comparison: Comparison, batches: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_verified(tiny_network(), CARD, tmp_path / "model.onnx", on_compared=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "model.onnx"
    write_verified(tiny_network(), CARD, path)
    return path


def test_file_agrees_with_its_network(model: Path) -> None:
    compared = verify(tiny_network(), model)
    assert len(compared) == len(unseen_shapes(CARD))
    assert all(0 <= c.error <= TOLERANCE for c in compared)
    assert any(c.error > 0 for c in compared)  # two implementations; were they all equal, one would not have run


def test_features_that_cancel_are_not_the_files_error(model: Path) -> None:
    """A drawn case: the embedding of a batch is 5e-4 at most where 0.1 is usual, and torch is off by 1.1e-5 of it itself."""
    assert all(0 <= c.error <= TOLERANCE for c in verify(tiny_network(), model, seed=2152555931))


@pytest.mark.parametrize("name", ["backbone.conv.weight", "classifier.bias"])
def test_smallest_difference_in_the_weights_is_found(name: str, model: Path) -> None:
    network = tiny_network()
    parameter = network.get_parameter(name).data
    parameter.view(-1)[0] += 3e-4 * parameter.abs().max()
    with pytest.raises(VerificationError, match=r"relative error \d\.\d\de-0[45], allowed 1e-05"):
        verify(network, model, seed=1)


def test_message_has_the_seed_and_the_seed_repeats_the_error(model: Path) -> None:
    messages = set()
    for _ in range(2):
        with pytest.raises(VerificationError, match="seed 77") as caught:
            verify(tiny_network(3), model, seed=77)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_seed_decides_the_images(model: Path) -> None:
    network = tiny_network()
    assert verify(network, model, seed=5) == verify(network, model, seed=5)
    assert verify(network, model, seed=5) != verify(network, model, seed=6)


def test_progress_is_told_batch_by_batch(model: Path) -> None:
    told: list[tuple[Comparison, int]] = []
    compared = verify(tiny_network(), model, on_compared=lambda comparison, batches: told.append((comparison, batches)))
    assert told == [(comparison, len(compared)) for comparison in compared]


@pytest.mark.parametrize("training", [True, False])
def test_networks_mode_is_restored(training: bool, model: Path) -> None:
    network = tiny_network().train(training)
    network.backbone.train(not training)
    verify(network, model)
    assert network.training is training
    assert network.backbone.training is not training


def test_output_of_another_width_is_found(model: Path) -> None:
    with pytest.raises(VerificationError, match=r"embedding at .*: torch gives shape \(1, 12\), ONNX Runtime \(1, 6\)"):
        verify(tiny_network(pooling="catavgmax"), model)


def edited(model: Path, path: Path, **card: Any) -> Path:
    """A copy of the model with another card."""
    copy = ir.load(model)
    old = ModelCard.read(copy)
    assert old is not None
    old.model_copy(update=card).write(copy)
    ir.save(copy, path)
    return path


def test_card_that_promises_too_small_a_size_is_found(tmp_path: Path) -> None:
    network = tiny_network(padding=0)
    write_verified(network, CARD, tmp_path / "model.onnx")
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        verify(network, edited(tmp_path / "model.onnx", tmp_path / "small.onnx", min_height=2))


def test_what_is_not_a_model_with_a_card_is_refused(model: Path, tmp_path: Path) -> None:
    bare = ir.load(model)
    del bare.metadata_props[METADATA_KEY]
    ir.save(bare, tmp_path / "bare.onnx")
    with pytest.raises(VerificationError, match=r"bare\.onnx has no card"):
        verify(tiny_network(), tmp_path / "bare.onnx")
    (tmp_path / "garbage.onnx").write_bytes(b"GARBAGE")
    with pytest.raises(VerificationError, match=r"garbage\.onnx is not a valid model"):
        verify(tiny_network(), tmp_path / "garbage.onnx")
    wrong = ir.load(model)
    wrong.graph[0].op_type = "Convolve"
    ir.save(wrong, tmp_path / "wrong.onnx")
    with pytest.raises(VerificationError, match=r"wrong\.onnx is not a valid model: .*Convolve"):
        verify(tiny_network(), tmp_path / "wrong.onnx")


def test_batches_are_small_odd_wide_tall_and_large() -> None:
    card = ModelCard(preprocessing=Preprocessing(channels="L"), min_height=8, min_width=6)
    shapes = unseen_shapes(card)
    assert {n for n, *_ in shapes} == {1, 2, 3, 5}
    assert {c for _, c, *_ in shapes} == {1}
    sizes = [(h, w) for *_, h, w in shapes]
    assert sizes[0] == (8, 6)
    assert (9, 7) in sizes
    assert all(h >= 8 and w >= 6 for h, w in sizes)
    assert any(h % 2 and w % 2 and h > 30 for h, w in sizes)
    assert any(w > 10 * h for h, w in sizes)
    assert any(h > 10 * w for h, w in sizes)
    assert max(h * w for h, w in sizes) > 300 * 400
    assert len(set(sizes)) >= 9


def test_images_are_preprocessed_pixels_one_of_them_flat(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = {"preprocessing": Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))}
    seen: list[np.ndarray] = []
    network = tiny_network()
    network.register_forward_pre_hook(lambda _, images: seen.append(images[0].numpy()))
    verify(network, edited(model, model.with_name("scaled.onnx"), **card))
    for images in seen:
        mean, std = (np.array(v)[:, None, None] for v in ((0.1, 0.2, 0.3), (0.5, 0.25, 0.125)))
        pixels = (images * std + mean) * 255
        assert images.dtype == np.float32
        assert np.abs(pixels - pixels.round()).max() <= 1e-3
        assert pixels.min() >= -1e-3
        assert pixels.max() <= 255.001
        if len(images) > 1:
            assert (images[-1] == images[-1][:, :1, :1]).all()
            assert images[0].size < 100 or images[0].std() > 0.1


@pytest.mark.parametrize(
    ("expected", "actual", "error"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [1.5, -4.0], 0.125),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 1e-9], np.inf),
        ([1.0, np.nan], [1.0, np.nan], np.inf),
        ([1.0, np.inf], [1.0, np.inf], np.inf),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
    ],
)
def test_relative_error(expected: list[float], actual: list[float], error: float) -> None:
    assert relative_error(np.array(expected, np.float32), np.array(actual, np.float32)) == error


def test_only_verify_and_report_import_onnxruntime() -> None:
    users = {file.name for file in Path("export").rglob("*.py") if "import onnxruntime" in file.read_text()}
    assert users <= {"verify.py", "report.py"}
    assert "verify.py" in users


def test_only_verify_writes_models() -> None:
    writers = {
        file.name
        for file in Path("export").rglob("*.py")
        if "ir.save(" in file.read_text() or "onnx.save" in file.read_text()
    }
    assert writers == {"verify.py"}
    assert not hasattr(export.verify, "write")
    assert os.path.realpath(export.verify.__file__) == os.path.realpath("export/verify.py")
