"""The dependency direction of the house: imports are walked, and torch stays out of the service."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = {
    "graphs": [["card"], ["front", "operators"], ["anysize"]],
    "graphs.anysize": [
        ["sizes", "states", "facts", "fold", "writer"],
        ["domains", "plan", "scales"],
        ["view", "masks", "found"],
        ["windows", "layouts", "numbers", "arithmetic", "decompose", "ownership"],
        ["rules", "partials", "trunk", "head"],
        ["analysis"],
        ["fill", "geometry", "attention"],
        ["averages", "scalars", "reductions"],
        ["neighbours"],
        ["ragged", "split"],
        ["compile", "alike", "features", "borrowed"],
        ["cut"],
    ],
    "graphs.operators": [
        ["regions", "graph", "request"],
        ["expression"],
        ["functions", "gradient", "cells"],
        ["operator"],
        # One row for the families: none may know another, but for what they all share.
        ["weights", "compose", "native", "systems"],
        ["extremes", "means", "powers", "exponentials", "orders", "kmax", "moments", "mixtures", "gated", "windowed"],
        ["aggregates", "attention", "codebooks", "learned", "routing", "second_order", "clusters"],
        ["catalogue"],
        ["document"],
        ["__main__"],
    ],
    "graphs.operators.regions": [
        ["block"],
        ["numbers", "axis"],
        ["buckets", "grid", "joined", "masked", "rectangles", "transpose", "whole"],
        [
            "adaptive",
            "align",
            "binomial",
            "boxes",
            "centred",
            "fractional",
            "haar",
            "prior",
            "rmac",
            "segments",
            "windows",
        ],
    ],
    "export": [
        ["heads", "backbones", "digits", "augment"],
        ["accuracy", "samples"],
        ["network"],
        ["weights", "train", "to_onnx"],
        ["monitor", "verify"],
        ["report", "overview"],
        ["shipped"],
        ["commands"],
        ["__main__"],
    ],
    "service": [
        ["errors", "cores"],
        ["settings"],
        ["codecs"],
        ["runtime"],
        ["reader"],
        ["api"],
        ["app", "upgrade", "refusal", "hourglass"],
        ["unread"],
        ["bounded"],
        ["connection"],
        ["prompt"],
        ["server"],
        ["workers"],
        ["__main__"],
    ],
    "service.runtime": [
        [
            "session",
            "line",
            "canvas",
            "choice",
            "costs",
            "broken",
            "policy",
            "inside",
            "configuration",
            "described",
            "folder",
            "weights",
            "vocabulary",
            "reading",
            "grid",
            "strips",
            "heap",
            "ranking",
            "owner",
            "deadline",
            "wire",
            "tiling",
            "scratch",
        ],
        [
            "admission",
            "partition",
            "shapes",
            "network",
            "pooling",
            "tile_batches",
            "tile_graphs",
            "source",
            "head",
            "remote",
        ],
        ["grouping", "lanes", "stopwatch", "handover", "crew"],
        ["batcher", "statistics", "warmup"],
        ["tick", "tile_course"],
        ["tiles", "mosaic"],
        ["features"],
        ["own_input", "descriptor", "activation"],
        ["model"],
        ["succession"],
        ["loader"],
        ["repository"],
        ["control"],
    ],
    "service.runtime.pooling": [
        ["sessions", "layout", "kinds", "feeds", "sums", "whole", "given"],
        ["prepared"],
        ["gradient", "unpool"],
        ["pooler"],
    ],
}
"""For each package, its parts from the bottom up: a part may import from its own row and the rows before it."""

MAY_IMPORT = {"graphs": {"graphs"}, "export": {"graphs", "export"}, "service": {"graphs", "service"}}

ALLOWED_OUTSIDE = {
    "graphs": {"annotated_types", "numpy", "onnx", "onnx_ir", "pydantic"},
}


def modules(package: str) -> list[tuple[str, Path]]:
    files = sorted((ROOT / package.replace(".", "/")).rglob("*.py"))
    return [(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), file) for file in files]


def imports(file: Path) -> list[str]:
    """Every module that a file imports, also inside functions, as dotted names down to the imported name."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def rank(package: str, module: str) -> int | None:
    """The row of a module in its package's layers; None where it is not in the package."""
    if not module.startswith(package + "."):
        return None
    part = module.removeprefix(package + ".").split(".")[0]
    rows = [row for row, parts in enumerate(LAYERS[package]) if part in parts]
    return rows[0] if rows else None


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_downwards(package: str) -> None:
    seen = 0
    for name, file in modules(package):
        own = rank(package, name)
        if own is None:
            assert name == package, f"{name} has no layer; give it one"
            continue
        for target in imports(file):
            other = rank(package, target)
            if other is not None:
                seen += 1
                assert other <= own, f"{name} imports {target}, which lies above it"
    assert seen or package == "graphs"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_their_own_and_graphs(package: str) -> None:
    for name, file in modules(package):
        for target in imports(file):
            root = target.split(".")[0]
            assert root not in {"graphs", "export", "service", "tests", "benchmarks"} - MAY_IMPORT[package], (
                f"{name} imports {target}"
            )
            if package in ALLOWED_OUTSIDE:
                allowed = ALLOWED_OUTSIDE[package] | {package, *sys.stdlib_module_names}
                assert root in allowed, f"{name} imports {target}"


def test_only_the_session_imports_onnxruntime() -> None:
    users = [name for name, file in modules("service") if any(t.split(".")[0] == "onnxruntime" for t in imports(file))]
    assert users == ["service.runtime.session"]


def test_service_leaves_torch_out() -> None:
    code = "import service.app, service.__main__, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = set(output.split())
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "onnxscript", "sklearn", "export", "timm", "tensorboard"}
