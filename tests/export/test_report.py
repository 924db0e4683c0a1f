from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export.accuracy import Size, accuracy
from export.digits import LABELS, PREPROCESSING, Digits, load_split
from export.monitor import torch_classifier
from export.report import BEGIN, END, Row, measure, newest_file, replaced, session_classifier, table, write
from export.train import build
from export.verify import write_verified
from graphs.card import ModelCard, Preprocessing

SMALL = {"num_features": 12, "widths": (4, 6, 8), "depths": (0, 0), "levels": 2}
FILLED, PLACED = Size(12, 40, True), Size(64, 64, False)


def rows() -> list[Row]:
    return [
        Row("digits", "lse", FILLED, False, 0.97),
        Row("digits", "lse", PLACED, False, 0.96),
        Row("digits-gap", "gap", FILLED, False, 0.969),
        Row("digits-gap", "gap", PLACED, False, 0.2),
        Row("digits", "lse", FILLED, True, 0.5),
        Row("digits-gap", "gap", FILLED, True, 1.0),
    ]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    card = ModelCard(labels=LABELS, preprocessing=PREPROCESSING)
    write_verified(build({"pooling": "gmp"}, 0, **SMALL).eval(), card, folder / "digits" / "2" / "model.onnx", seed=0)
    return folder


def test_a_file_is_measured_as_its_network_would_be(repository: Path) -> None:
    digits = load_split().validation
    few = Digits(digits.images[:60], digits.labels[:60])
    network = build({"pooling": "gmp"}, 0, **SMALL).eval()  # the same seed: the network that the file was made of
    large = Size(300, 220, False)
    counts: list[int] = []
    measured = measure(repository, sizes=(FILLED, large), digits=few, on_row=lambda row, count: counts.append(count))
    assert counts == [3, 3, 3]
    assert [(row.model, row.pooling, row.size, row.inverted) for row in measured] == [
        ("digits", "gmp", FILLED, False),
        ("digits", "gmp", large, False),
        ("digits", "gmp", FILLED, True),
    ]
    for row in measured:
        assert row.accuracy == accuracy(torch_classifier(network), few, row.size, inverted=row.inverted)


def test_the_session_preprocesses_as_the_card_says(tmp_path: Path) -> None:
    network = build({"pooling": "gap"}, 1, **SMALL).eval()
    card = ModelCard(preprocessing=Preprocessing(channels="L", scale=1 / 64, mean=(0.25,), std=(2.0,)))
    write_verified(network, card, tmp_path / "model.onnx", seed=0)
    pictures = np.random.default_rng(0).integers(0, 256, (30, 20, 24), dtype=np.uint8)
    with torch.no_grad():
        logits, _ = network((torch.from_numpy(pictures)[:, None].float() / 64 - 0.25) / 2)
    assert np.array_equal(session_classifier(tmp_path / "model.onnx")(pictures), logits.argmax(1).numpy())


def test_a_colour_model_is_refused(tmp_path: Path) -> None:
    from export.backbones.convnet import ConvNet
    from export.network import Network

    torch.manual_seed(0)
    network = Network(ConvNet(3, **SMALL), {"pooling": "gap"}, 2)  # type: ignore[arg-type]
    write_verified(network, ModelCard(), tmp_path / "model.onnx", seed=0)
    with pytest.raises(ValueError, match="takes RGB; pictures of digits are grey"):
        session_classifier(tmp_path / "model.onnx")


def test_the_highest_version_counts(tmp_path: Path) -> None:
    for version in ("2", "10", "draft"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "model.onnx").touch()
    assert newest_file(tmp_path).parent.name == "10"
    with pytest.raises(FileNotFoundError, match=r"no <version>/model\.onnx"):
        newest_file(tmp_path / "10")


def test_the_table_has_a_line_a_size_and_marks_what_is_below_the_goal() -> None:
    lines = table(rows()).splitlines()
    assert lines[2] == "| picture, width×height | `digits` (lse) | `digits-gap` (gap) |"
    assert lines[4] == "| 12×40, digit fills it | 0.970 | *0.969* |"
    assert lines[5] == "| 64×64, digit anywhere in it | 0.960 | *0.200* |"
    assert lines[-1] == "| 12×40, digit fills it | *0.500* | 1.000 |"


def test_the_readme_block_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    readme, docs = tmp_path / "README.md", tmp_path / "docs"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write(rows(), docs, readme, count=360)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert table(rows()) in text
    assert "old" not in text
    assert table(rows()) in (docs / "accuracy.md").read_text(encoding="utf-8")
    figures = json.loads((docs / "accuracy.json").read_text(encoding="utf-8"))
    assert figures["digits"] == 360
    assert figures["rows"][3] == {
        "model": "digits-gap",
        "pooling": "gap",
        "size": {"width": 64, "height": 64, "filled": False},
        "inverted": False,
        "accuracy": 0.2,
    }
    write(rows(), docs, readme, count=360)
    assert readme.read_text(encoding="utf-8") == text  # a second time changes nothing


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_readme_without_one_block_is_refused_and_nothing_is_written(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one <!-- accuracy -->"):
        replaced(text, "new")
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="expected one"):
        write(rows(), tmp_path / "docs", tmp_path / "README.md", count=360)
    assert not (tmp_path / "docs").exists()
