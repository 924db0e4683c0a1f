"""Models: a card in the file or beside it, what a graph fixes, and what makes a model broken."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from service.errors import DeadlineExceeded, InvalidImage
from service.runtime.model import Model
from service.runtime.reading import BrokenModel
from service.settings import Settings
from tests.claims import relative_error
from tests.tiny import LABELS, TinyClassifier, card


def load(path: Path) -> Model:
    return Model("tiny", "1", path, Settings(), "cpu")


def infer(model: Model, images: list[np.ndarray], limit_s: float = 60.0) -> list[np.ndarray]:
    async def all_at_once() -> list[np.ndarray]:
        deadline = time.monotonic() + limit_s
        answers = await asyncio.gather(*(model.infer(image, deadline) for image in images))
        return [model.scores(answer) for answer in answers]

    model.start()
    try:
        return asyncio.run(all_at_once())
    finally:
        model.stop()


def test_images_of_any_size_get_their_own_logits(tmp_path: Path, rng: np.random.Generator) -> None:
    """Relative error ≤ 1e-5 against float64, 40 pictures of random sizes at once."""
    network = TinyClassifier.random(int(rng.integers(1000)))
    model = load(network.save(tmp_path, card("BGR")))
    images = [rng.integers(0, 256, (*rng.integers(1, 30, 2), 3), np.uint8) for _ in range(40)]
    for image, logits in zip(images, infer(model, images), strict=True):
        assert relative_error(logits, network.logits(image, card("BGR").preprocessing)) <= 1e-5


def test_model_json_beside_the_file_is_its_card(tmp_path: Path) -> None:
    path = TinyClassifier.random(0).save(tmp_path, None)
    with pytest.raises(BrokenModel, match=r"model\.onnx: has no card\. Put a model\.json beside it"):
        load(path)
    (tmp_path / "model.json").write_text(card().model_dump_json())
    assert load(path).label_names == LABELS


def test_model_json_wins_over_the_file(tmp_path: Path) -> None:
    path = TinyClassifier.random(0).save(tmp_path, card())
    (tmp_path / "model.json").write_text(card(labels=["x", "y", "z"]).model_dump_json())
    assert load(path).label_names == ("x", "y", "z")


def test_labels_are_the_indices_where_the_card_has_none(tmp_path: Path) -> None:
    assert load(TinyClassifier.random(0).save(tmp_path, card(labels=[]))).label_names == ["0", "1", "2"]


@pytest.mark.parametrize("batch", [1, 4])
def test_fixed_batch_is_kept(tmp_path: Path, batch: int, rng: np.random.Generator) -> None:
    network = TinyClassifier.random(5)
    model = load(network.save(tmp_path, card(), size=(8, 8), batch=batch))
    images = [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(7)]
    for image, logits in zip(images, infer(model, images), strict=True):
        assert relative_error(logits, network.logits(image, card().preprocessing)) <= 1e-5


def test_size_that_the_graph_fixes_is_demanded(tmp_path: Path) -> None:
    model = load(TinyClassifier.random(5).save(tmp_path, card(), size=(8, 12)))
    model.check_size(8, 12)
    with pytest.raises(InvalidImage, match=r"exactly 12×8 pixels .* got 8×12"):
        model.check_size(12, 8)


def test_minimum_size_is_demanded(tmp_path: Path) -> None:
    model = load(TinyClassifier.random(5).save(tmp_path, card(min_height=7, min_width=9)))
    model.check_size(7, 9)
    with pytest.raises(InvalidImage, match="at least 9×7 pixels, got 8×7"):
        model.check_size(7, 8)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"labels": ["one", "two"]}, "the card has 2 labels, the output 3 classes"),
        ({"output": "scores"}, "the card's output is 'scores', the graph has \\['logits'\\]"),
        ({"preprocessing": {"channels": "L"}}, "has 3 channels"),
    ],
)
def test_card_that_does_not_fit_makes_a_broken_model(tmp_path: Path, members: dict[str, object], says: str) -> None:
    path = TinyClassifier.random(0).save(tmp_path, card())
    (tmp_path / "model.json").write_text(card().model_validate(members).model_dump_json())
    with pytest.raises(BrokenModel, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_card_that_is_no_card_makes_a_broken_model(tmp_path: Path) -> None:
    path = TinyClassifier.random(0).save(tmp_path, card())
    (tmp_path / "model.json").write_text('{"lables": []}')
    with pytest.raises(BrokenModel, match=r"(?s)model\.json: its card is not valid: .*lables"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"not an onnx file", b"\x08\x0a" + b"\xff" * 100])
def test_file_that_is_no_model_makes_a_broken_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BrokenModel, match=r"model\.onnx: "):
        load(path)


def test_graph_that_fails_its_warm_up_makes_a_broken_model(tmp_path: Path) -> None:
    model = TinyClassifier.random(0).to_onnx(card())
    model.graph.node[-1].input[0] = "r"  # Gemm on a map of rank 4
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BrokenModel, match=r"model\.onnx: "):
        load(path)


def test_answer_that_comes_too_late_is_a_timeout(tmp_path: Path) -> None:
    model = load(TinyClassifier.random(0).save(tmp_path, card()))
    with pytest.raises(DeadlineExceeded):
        infer(model, [np.zeros((8, 8, 3), np.uint8)], limit_s=-1.0)
