"""The accuracy table: every model that ships, by picture size, measured on its file in ONNX Runtime.

Written to docs/accuracy.md and docs/accuracy.json, and to the block of the README that is marked for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from export.accuracy import FILLED, GOALS, PLACED, Classify, Size, accuracy
from export.digits import Digits, Picture, load_split
from graphs.card import ModelCard

COMMAND = "python -m export report"
LARGEST_INVERTED = 256 * 256
"""Pixels; larger pictures are measured bright on dark only, which halves the time that the report takes."""
BEGIN, END = "<!-- accuracy -->", "<!-- /accuracy -->"


class Row(NamedTuple):
    """One figure: a model, its head, the size, whether the pictures are negatives, and the share classified right."""

    model: str
    pooling: str
    size: Size
    inverted: bool
    accuracy: float


def session_classifier(path: Path, *, threads: int = 0) -> Classify:
    """Open a digit model file in ONNX Runtime as a classifier of grey pictures, preprocessed as its card says.

    Args:
        path: of a model.onnx with a card whose channels are L.
        threads: of ONNX Runtime; 0 takes all cores.

    Raises:
        ValueError: no card, or one that is not for grey pictures.
    """
    card = read_card(path)
    steps = card.preprocessing
    if steps.channels != "L":
        raise ValueError(f"{path} takes {steps.channels}; pictures of digits are grey (L)")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed, output = card.input or session.get_inputs()[0].name, card.output or "logits"
    scale, mean, std = np.float32(steps.scale), np.float32(steps.mean[0]), np.float32(steps.std[0])

    def classify(pictures: Picture) -> npt.NDArray[np.int64]:
        images = (pictures[:, None].astype(np.float32) * scale - mean) / std
        logits: npt.NDArray[np.float32] = session.run([output], {feed: images})[0]
        labels: npt.NDArray[np.int64] = logits.argmax(1)
        return labels

    return classify


def read_card(path: Path) -> ModelCard:
    """Read a model file's card.

    Raises:
        ValueError: it has none.
    """
    card = ModelCard.read(ir.load(path))
    if card is None:
        raise ValueError(f"{path} has no card in its metadata")
    return card


def measure(
    models: Path,
    *,
    names: Sequence[str] | None = None,
    sizes: Sequence[Size] = (*FILLED, *PLACED),
    digits: Digits | None = None,
    on_row: Callable[[Row, int], None] | None = None,
) -> list[Row]:
    """Measure the models of a repository at every size, bright on dark, and up to LARGEST_INVERTED the other way round.

    Args:
        models: folder with `<name>/<version>/model.onnx`; the newest version counts.
        names: models to measure, in order; None takes all whose name begins with `digits`, shortest first.
        sizes: of the pictures.
        digits: to measure on; None takes the 360 that no model has seen.
        on_row: called with each figure and the number of them all.

    Raises:
        FileNotFoundError: there is no such model.
    """
    digits = load_split().test if digits is None else digits
    if names is None:
        names = sorted(
            (path.name for path in models.glob("digits*") if path.is_dir()), key=lambda name: (len(name), name)
        )
    cells = [(size, False) for size in sizes]
    cells += [(size, True) for size in sizes if size.width * size.height <= LARGEST_INVERTED]
    rows: list[Row] = []
    files = {name: newest_file(models / name) for name in names}
    for name, path in files.items():
        pooling = str(read_card(path).head.get("pooling", "?"))
        classify = session_classifier(path)
        for size, inverted in cells:
            rows.append(Row(name, pooling, size, inverted, accuracy(classify, digits, size, inverted=inverted)))
            if on_row is not None:
                on_row(rows[-1], len(files) * len(cells))
    return rows


def newest_file(folder: Path) -> Path:
    """Find the model.onnx of a model's highest version.

    Raises:
        FileNotFoundError: there is none.
    """
    versions = [path for path in folder.glob("*/model.onnx") if path.parent.name.isdecimal()]
    if not versions:
        raise FileNotFoundError(f"no <version>/model.onnx in {folder}")
    return max(versions, key=lambda path: int(path.parent.name))


def table(rows: Sequence[Row]) -> str:
    """Lay figures out as Markdown: a line a size, a column a model, below the goal in italics; negatives in a second table."""
    parts = []
    for inverted in (False, True):
        shown = [row for row in rows if row.inverted is inverted]
        models = list(dict.fromkeys((row.model, row.pooling) for row in shown))
        by_cell = {(row.size, row.model): row.accuracy for row in shown}
        kind = (
            "Dark ink on a bright ground (the same pictures, inverted)" if inverted else "Bright ink on a dark ground"
        )
        lines = [
            f"{kind}:",
            "",
            "| picture, width×height | " + " | ".join(f"`{name}` ({pooling})" for name, pooling in models) + " |",
            "|---|" + "---:|" * len(models),
        ]
        for size in dict.fromkeys(row.size for row in shown):
            where = "digit fills it" if size.filled else "digit anywhere in it"
            cells = [_cell(by_cell[size, name], GOALS[size.filled]) for name, _ in models]
            lines.append(f"| {size}, {where} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def notes(count: int) -> str:
    """Say what was measured, and how."""
    return (
        f"Share of {count} held-out digits classified right, each picture at its own size, by the model's file in ONNX Runtime "
        f"(`{COMMAND}` measures it and writes this table). A digit that does not fill its picture has a side of 16, 24, 32, 48, 64 "
        f"or 96 px (where that fits) and lies anywhere on a ground of grey level 0…38 with noise of standard deviation 5…13. "
        f"The goals are {GOALS[True]} and, where the digit lies anywhere, {GOALS[False]}; what is below is in italics. "
        "A digit of more than about 256 px is larger than the network's field of view: make the picture smaller. "
        f"With {count} digits, 0.97 has a standard error of {math.sqrt(0.97 * 0.03 / count):.3f}."
    )


def write(rows: Sequence[Row], docs: Path, readme: Path | None, *, count: int) -> None:
    """Write docs/accuracy.md and .json, and the README's marked block.

    Args:
        rows: from `measure`.
        docs: folder; made if it is not there.
        readme: file with BEGIN and END in it; None leaves it alone.
        count: digits that each figure comes from.

    Raises:
        ValueError: the README has not exactly one such block; nothing is written then.
    """
    block = f"{notes(count)}\n\n{table(rows)}\n"
    text = None if readme is None else replaced(readme.read_text(encoding="utf-8"), block)
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "accuracy.md").write_text(f"# Accuracy by picture size\n\n{block}", encoding="utf-8")
    figures = [{**row._asdict(), "size": row.size._asdict(), "accuracy": round(row.accuracy, 6)} for row in rows]
    content: dict[str, Any] = {
        "command": COMMAND,
        "digits": count,
        "goals": {"filled": GOALS[True], "placed": GOALS[False]},
    }
    (docs / "accuracy.json").write_text(json.dumps({**content, "rows": figures}, indent=1) + "\n", encoding="utf-8")
    if readme is not None and text is not None:
        readme.write_text(text, encoding="utf-8")


def replaced(text: str, block: str) -> str:
    """Put a block between BEGIN and END in place of what is there.

    Raises:
        ValueError: there is not exactly one of each, in this order.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in tail:
        raise ValueError(f"expected one {BEGIN} … {END} block")
    return f"{head}{BEGIN}\n{block}{END}{tail}"


def _cell(share: float, goal: float) -> str:
    return f"{share:.3f}" if share >= goal else f"*{share:.3f}*"
