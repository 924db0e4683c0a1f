"""Reading a graph with operators that ONNX Runtime has not: they are named before it opens the graph."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from service.runtime.reading import read_model
from tests.service.runtime.version_folder import good, refused, saved
from tests.tiny import TinyClassifier, card


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return saved(tmp_path)


def with_node(version: Path, *nodes: onnx.NodeProto, **rest: object) -> None:
    model = TinyClassifier.random(0).to_onnx(card())
    model.graph.node.extend(nodes)
    for domain, opset in rest.get("opsets", {}).items():  # type: ignore[attr-defined]
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, opset))
        else:
            model.opset_import[0].version = opset
    model.functions.extend(rest.get("functions", []))  # type: ignore[arg-type]
    (version / "model.onnx").write_bytes(model.SerializeToString())


def test_operators_that_nobody_knows_are_named(version: Path) -> None:
    nodes = [helper.make_node(f"Unheard{i}", ["images"], [f"u{i}"]) for i in range(7)]
    with_node(version, *nodes)
    reason = refused(version)
    assert reason.startswith("model.onnx: ONNX Runtime has no ai.onnx::Unheard0 of opset 20; no ai.onnx::Unheard1")
    assert reason.endswith("and 2 more")
    good(version)


@pytest.mark.parametrize(
    ("node", "opsets", "says"),
    [
        (helper.make_node("Relu", ["images"], ["u"], domain="org.nobody"), {"org.nobody": 1}, "no org.nobody::Relu"),
        (helper.make_node("Relu", ["images"], ["u"], domain="org.nobody"), {}, "no org.nobody::Relu"),
        (helper.make_node("Gelu", ["images"], ["u"]), {"": 19}, "no ai.onnx::Gelu of opset 19"),
        (helper.make_node("Upsample", ["images"], ["u"]), {"": 20}, "no ai.onnx::Upsample of opset 20"),
        (helper.make_node("Relu", ["images"], ["u"]), {"": 1000}, "Relu of opset 1000 (it has opsets up to"),
    ],
    ids=["domain", "domain without import", "too new", "taken away", "opset of the future"],
)
def test_operator_of_another_domain_or_opset_is_refused(
    version: Path, node: onnx.NodeProto, opsets: dict[str, int], says: str
) -> None:
    with_node(version, node, opsets=opsets)
    assert says in refused(version)
    good(version)


def test_operators_inside_branches_and_functions_are_checked(version: Path) -> None:
    inner = helper.make_node("Unheard", [], ["k"])
    branch = helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("k", 1, [3])])
    with_node(version, helper.make_node("If", ["axes"], ["u"], then_branch=branch, else_branch=branch))
    assert "no ai.onnx::Unheard of opset 20" in refused(version)
    call = helper.make_node("Mine", ["images"], ["u"], domain="own")
    bad = helper.make_function(
        "own", "Mine", ["x"], ["y"], [helper.make_node("Unheard", ["x"], ["y"])], [helper.make_opsetid("", 18)]
    )
    with_node(version, call, opsets={"own": 1}, functions=[bad])
    assert "no ai.onnx::Unheard of opset 18" in refused(version)
    good(version)


def test_function_of_the_models_own_is_known(version: Path) -> None:
    call = helper.make_node("Mine", ["images"], ["u"], domain="own")
    relu = helper.make_function(
        "own", "Mine", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 18)]
    )
    with_node(version, call, opsets={"own": 1}, functions=[relu])
    read_model(version / "model.onnx")


def test_what_onnx_runtime_adds_is_known(version: Path) -> None:
    with_node(version, helper.make_node("Gelu", ["images"], ["u"], domain="com.microsoft"), opsets={"com.microsoft": 1})
    read_model(version / "model.onnx")
