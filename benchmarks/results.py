"""What a benchmark leaves behind: its tables on the terminal, benchmarks/results/<name>.json, and README.md there, all of them."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import onnxruntime
from rich.console import Console
from rich.table import Table

from service.cores import available_cores

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Grid:
    """A table, as text; its first column is words, the others are figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def drawn(self) -> Table:
        """Lay it out for the terminal."""
        table = Table(title=self.title)
        for place, column in enumerate(self.columns):
            table.add_column(column, justify="right" if place else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> list[str]:
        """Lay it out as lines of Markdown."""
        rule = ["---:" if place else "---" for place, _ in enumerate(self.columns)]
        return [f"**{self.title}**", "", *(f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows)), ""]


@dataclass(frozen=True)
class Goal:
    """A figure and what it was to be."""

    name: str
    value: float
    relation: Literal["<=", ">="]
    bound: float

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value <= self.bound if self.relation == "<=" else self.value >= self.bound


def goals_grid(goals: Sequence[Goal]) -> Grid:
    """Lay the goals out."""
    relations = {"<=": "≤", ">=": "≥"}
    rows = [
        (goal.name, f"{relations[goal.relation]} {goal.bound:g}", f"{goal.value:.3g}", "yes" if goal.met else "no")
        for goal in goals
    ]
    return Grid("Goals", ("", "wanted", "found", "met"), rows)


def machine() -> dict[str, Any]:
    """Facts that the figures depend on; nothing that names the machine."""
    packages = ("numpy", "uvicorn", "fastapi", "simplejpeg", "pillow")
    return {
        "cores": available_cores(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        **{package: version(package) for package in packages},
    }


def terminal() -> Console:
    """A terminal, or a file wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def finish(name: str, found: dict[str, Any], grids: Sequence[Grid], console: Console, *, save: bool) -> None:
    """Print the tables; where the run was a whole one, keep it. Goals that are missed are said, and fail nothing."""
    for grid in grids:
        console.print(grid.drawn())
    if not save:
        console.print("part of the measurements only: nothing is written")
        return
    FOLDER.mkdir(exist_ok=True)
    document = {"machine": machine(), **_rounded(found), "tables": [asdict(grid) for grid in grids]}
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (FOLDER / "README.md").write_text(_readme())


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(member) for key, member in value.items()}
    return [_rounded(member) for member in value] if isinstance(value, list) else value


def _readme() -> str:
    lines = ["# Results", "", "Written by `make bench`; docs/benchmarks.md says what the figures mean.", ""]
    for file in sorted(FOLDER.glob("*.json"), reverse=True):
        document = json.loads(file.read_text())
        facts = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
        lines += [f"## {file.stem}", "", facts, ""]
        for grid in document["tables"]:
            lines += Grid(**grid).markdown()
    return "\n".join(lines)
