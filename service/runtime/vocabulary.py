"""Operators of a graph that ONNX Runtime does not have: named before it is asked to build a session."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from service.runtime.broken import BrokenModel
from service.runtime.session import operator_versions

_SHOWN = 5


def check_operators(graph: ir.Model, path: Path) -> None:
    """Check that ONNX Runtime has every operator of a graph, or that the model brings it as a function of its own.

    Args:
        graph: as read.
        path: of the model's file, for messages.

    Raises:
        BrokenModel: names those it has not, with their domain and opset.
    """
    unknown = _unknown(graph, graph.graph, graph.opset_imports)
    for function in graph.functions.values():
        unknown |= _unknown(graph, function, {**graph.opset_imports, **function.opset_imports})
    if unknown:
        named = sorted(unknown)
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        raise BrokenModel(f"{path.name}: ONNX Runtime has no {'; no '.join(named[:_SHOWN])}{more}", path)


def _unknown(graph: ir.Model, part: ir.Graph | ir.Function, opsets: dict[str, int]) -> set[str]:
    known = operator_versions()
    newest = {"": max(version for (domain, _), versions in known.items() if not domain for version in versions)}
    own = {(domain, name) for domain, name, _ in graph.functions}
    unknown = set()
    for node in ir.traversal.RecursiveGraphIterator(part):
        domain, name = node.domain, node.op_type
        if (domain, name) in own:
            continue
        opset = opsets.get(domain, opsets.get("", 1) if not domain else 1)
        said = f"{domain or 'ai.onnx'}::{name[:64]} of opset {opset}"
        since = [version for version in known.get((domain, name), ()) if abs(version) <= opset]
        if opset > newest.get(domain, opset):
            unknown.add(f"{said} (it has opsets up to {newest[domain]})")
        elif not since or max(since, key=abs) < 0:
            unknown.add(said)
    return unknown
