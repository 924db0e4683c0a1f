from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from export import monitor, shipped
from export.accuracy import Size, accuracy
from export.backbones.convnet import ConvNet
from export.digits import Digits, load_split
from export.monitor import TensorBoard, mosaic, torch_classifier
from export.shipped import HEADS, make_models, with_head
from export.train import Progress, Recipe, build, draw_scenes, train
from graphs.card import ModelCard

SMALL = {"num_features": 24, "widths": (8, 16, 24), "depths": (1, 0), "levels": 2}
QUICK = Recipe(steps=2, warm_up=1, pairs=1, pixels=2000)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # Nets this small gain nothing from more, and wait for each other where the cores are busy.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (8, 8), (63, 64), (65, 129)])
def test_convnet_takes_any_size_and_gives_a_position_for_each_stride(levels: int, size: tuple[int, int]) -> None:
    net = ConvNet(3, num_features=5, widths=(2, 3, 4), levels=levels)
    assert net.total_stride == 8 * 2 ** (levels - 1)
    features = net(torch.rand(2, 3, *size))
    assert features.shape == (2, 5, *(-(-side // net.total_stride) for side in size))
    assert float(features.detach().min()) >= 0


def test_convnet_features_depend_on_the_receptive_field_only() -> None:
    # Two pictures that agree in their left half agree in the features of its far left: nothing global is computed.
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    torch.manual_seed(seed)
    net = ConvNet(1, **SMALL)  # type: ignore[arg-type]
    one, other = torch.rand(1, 1, 40, 600), torch.rand(1, 1, 40, 600)
    other[..., :300] = one[..., :300]
    first, second = net(one), net(other)
    reach = first.shape[-1] // 4
    assert torch.equal(first[..., :reach], second[..., :reach])
    assert not torch.equal(first, second)


def test_convnet_has_at_least_one_level() -> None:
    with pytest.raises(ValueError, match="levels must be >= 1, got 0"):
        ConvNet(levels=0)


def test_a_residual_block_starts_as_the_identity() -> None:
    from export.backbones.convnet import Residual

    x = torch.rand(2, 6, 5, 7)
    assert torch.equal(Residual(6)(x), x)


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("pairs", 0), ("pixels", -1)])
def test_a_recipe_of_nothing_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field} must be >= 1, got {value}"):
        Recipe(**{field: value})  # type: ignore[arg-type]


def test_learning_rate_rises_then_falls_to_nothing_or_stays_up_for_another_round() -> None:
    recipe = Recipe(steps=1000, warm_up=100, learning_rate=1.0)
    assert recipe.rate(0) == pytest.approx(0.01)
    assert recipe.rate(500) == pytest.approx(0.5)
    assert recipe.rate(999) < 1e-5
    assert Recipe(steps=1000, warm_up=100, learning_rate=1.0, horizon=4000).rate(1000) == pytest.approx(
        0.8536, abs=1e-4
    )


def test_a_step_mixes_sizes_and_keeps_to_its_pixels() -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    recipe = Recipe(pairs=4, pixels=10_000)
    for _ in range(50):
        scenes = draw_scenes(recipe, generator)
        assert [scene for scene, _, _ in scenes] == ["filling", "placed"] * 4
        assert len({size for _, size, _ in scenes}) > 1
        for _, (height, width), count in scenes:
            assert count == 1 or count * height * width <= 10_000
            assert min(height, width) >= 8


def test_a_few_epochs_teach_digits_that_were_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    split = load_split()
    monkeypatch.setattr("export.train.draw_scenes", lambda *_: [("filling", (16, 16), 64)])  # one size: soon learned
    recipe = Recipe(steps=100, warm_up=10, learning_rate=4e-3, negatives=0, memory=0.9, seed=3)
    start = build({"pooling": "gmp"}, 3, **SMALL)
    losses: list[float] = []
    trained = train(start, split.train, recipe, on_step=lambda progress: losses.append(progress.loss))
    assert len(losses) == 100
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.3
    held_out = Digits(split.validation.images[:100], split.validation.labels[:100])
    size = Size(16, 16, True)
    before = accuracy(torch_classifier(start.eval()), held_out, size)
    after = accuracy(torch_classifier(trained), held_out, size)
    print(f"accuracy {before} before, {after} after")
    assert after > 0.5  # a tenth is chance
    assert after > before + 0.2


def test_training_is_the_same_for_the_same_seed_and_leaves_the_network_it_started_from() -> None:
    digits = load_split().train
    start = build({"pooling": "lse"}, 0, **SMALL)
    kept = {name: value.clone() for name, value in start.state_dict().items()}
    one, again = train(start, digits, QUICK), train(start, digits, QUICK)
    assert all(torch.equal(value, kept[name]) for name, value in start.state_dict().items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in one.state_dict().items())
    assert not one.training
    other = train(start, digits, Recipe(steps=2, warm_up=1, pairs=1, pixels=2000, seed=1))
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_another_head_keeps_backbone_and_classifier() -> None:
    first = build({"pooling": "lse"}, 0, **SMALL)
    other = with_head(first, {"pooling": "attention", "hidden": 4}, 1, **SMALL)
    assert other.head_config["pooling"] == "attention"
    for name, value in first.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(value, other.state_dict()[name])


def test_tensorboard_gets_losses_accuracies_and_features_before_and_after_pooling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "WATCHED", (Size(12, 40, True), Size(64, 64, False)))
    split = load_split()
    few = Digits(split.validation.images[:10], split.validation.labels[:10])
    board = TensorBoard(tmp_path, few, every=2)
    network = train(build({"pooling": "gap"}, 0, **SMALL), split.train, QUICK, on_step=board)
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    assert [event.step for event in events.Scalars("loss/train")] == [1, 2]
    [event] = events.Scalars("accuracy_validation/filled_12x40")
    assert event.step == 2
    assert event.value == pytest.approx(accuracy(torch_classifier(network), few, Size(12, 40, True)))
    assert sorted(tags["images"]) == ["features/0_picture", "features/1_before_pooling", "features/2_after_pooling"]


def test_a_mosaic_shows_each_map_once_on_one_scale() -> None:
    maps = torch.zeros(6, 32, 32)
    maps[2, 3, 4], maps[5] = 4.0, 2.0
    picture = mosaic(maps)
    assert picture.shape == (2 * 33, 3 * 33)
    assert picture[3, 2 * 33 + 4] == 200
    assert (picture[33 : 33 + 32, 66 : 66 + 32] == 100).all()
    assert mosaic(torch.zeros(1, 2, 2)).max() == 255  # nothing to show: the lines alone


def test_models_are_trained_from_one_network_written_and_say_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {name: HEADS[name] for name in ("digits", "digits-attention")}  # the others take their time to export
    monkeypatch.setattr(shipped, "HEADS", heads)
    monkeypatch.setattr(shipped, "quick_accuracy", lambda classify, digits: {"8×8 filled": 0.5})
    steps: list[tuple[str, int]] = []

    def on_step(name: str, progress: Progress) -> None:
        steps.append((name, progress.step))

    files = make_models(tmp_path, rounds=(QUICK, QUICK), tuning=(QUICK,), on_step=on_step, **SMALL)
    assert list(files) == ["digits", "digits-attention"]
    assert steps == [*(("digits", step) for step in (1, 2, 3, 4)), *(("digits-attention", step) for step in (1, 2))]
    for name, path in files.items():
        assert path == tmp_path / name / "1" / "model.onnx"
        card = ModelCard.read(ir.load(path))
        assert card is not None
        assert card.labels == tuple("0123456789")
        assert (card.preprocessing.channels, card.head["pooling"]) == ("L", HEADS[name]["pooling"])
        assert (card.min_height, card.min_width) == (1, 1)
        assert card.training["accuracy"] == {"8×8 filled": 0.5}
        assert card.training["command"] == "python -m export models"
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        logits = session.run(["logits"], {"images": np.zeros((3, 1, 9, 50), np.float32)})[0]
        assert logits.shape == (3, 10)
