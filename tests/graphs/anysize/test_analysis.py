"""What the analysis says of values: levels against a walk over real sizes, axes, receptive fields, minimum sizes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphs.anysize.compile import compile_plan
from graphs.anysize.domains import Batch, Cells, Fixed, Mixed, Positions, Tensor, Unknown, describe, factor
from graphs.anysize.fold import fold_constants
from graphs.anysize.geometry import geometry
from graphs.anysize.sizes import BATCH, Level, calculate, product, same
from graphs.anysize.windows import Window
from graphs.front import PIXELS, FrontError
from tests.graphs.anysize import exactness
from tests.graphs.anysize.drafts import Draft, analysed
from tests.tiny import TinyClassifier, card

ROWS, COLUMNS = Cells(Level("height", 8, -1)), Cells(Level("width", 8, -1))


def random_window(rng: np.random.Generator) -> Window:
    kernel = int(rng.integers(1, 8))
    pads = rng.integers(0, kernel, 2)
    return Window(
        kernel, int(rng.integers(1, 5)), int(pads[0]), int(pads[1]), int(rng.integers(1, 3)), bool(rng.integers(2))
    )


def test_any_chain_of_windows_is_one_level(rng: np.random.Generator) -> None:
    """The level's cells are those of torch's formula, step by step, for every size that has any."""
    for _ in range(100):
        chain = [random_window(rng) for _ in range(int(rng.integers(1, 6)))]
        levels = [Level("height")]
        for window in chain:
            levels.append(levels[-1].step(window.stride, window.reach))
        for pixels in range(1, 300):
            cells = pixels
            for w, level in zip(chain, levels[1:], strict=True):
                numerator = cells + w.before + w.after - w.dilation * (w.kernel - 1) - 1
                count = (-(-numerator // w.stride) if w.ceil else numerator // w.stride) + 1
                if w.ceil and (count - 1) * w.stride >= cells + w.before:
                    count -= 1
                cells = count
                assert (cells >= 1) == (pixels >= level.minimum)
                if cells < 1:
                    break
                assert cells == level.cells(pixels), (chain, pixels)


def test_overhang_is_what_the_last_window_sees_behind_the_last_cell(rng: np.random.Generator) -> None:
    for _ in range(100):
        w = random_window(rng)
        furthest = -(10**9)
        for cells in range(1, 100):
            count = (cells + w.reach) // w.stride + 1
            if count >= 1:
                furthest = max(furthest, (count - 1) * w.stride - w.before + w.span - (cells - 1))
        assert furthest == w.overhang


def test_a_3x3_with_padding_and_its_shortcut_meet_on_one_level() -> None:
    assert Level("height").step(2, Window(3, 2, 1, 1).reach) == Level("height").step(2, Window(1, 2).reach)
    assert Level("height").step(1, Window(3, 1, 1, 1).reach) == Level("height")
    assert Level("height").step(2, Window(3, 2, 0, 1).reach) != Level("height").step(2, Window(3, 2, 1, 1).reach)


def test_receptive_field_of_resnets_stem() -> None:
    """7×7/2, then 3×3/2: 11 pixels, of which 5 lie before (Araujo et al. 2019, doi.org/10.23915/distill.00021)."""
    axis = Window(3, 2, 1, 1).after_it(Window(7, 2, 3, 3).after_it(Cells(Level("height"))))
    assert isinstance(axis, Cells)
    assert (axis.first, axis.last) == (-5, 5)
    assert axis.level == Level("height", 4, -1)


def test_expressions_are_the_same_where_their_numbers_are() -> None:
    height = Level("height").count()
    padded = calculate("IntegerDiv", calculate("Add", height, 1), 2)
    assert same(padded, Level("height", 2, -1).count())
    assert not same(calculate("IntegerDiv", height, 2), padded)
    assert not same(height, Level("width").count())
    assert calculate("IntegerDiv", -7, 2) == -3  # as ONNX's Div: towards zero
    assert calculate("Mul", 1, height) is height


def test_reshape_follows_positions_groups_and_what_it_cannot() -> None:
    axes = (Batch(), Fixed(6), ROWS, COLUMNS)
    h, w = ROWS.count, COLUMNS.count
    area = calculate("Mul", h, w)
    assert factor([BATCH, 6, area], axes) == (Batch(), Fixed(6), Positions((ROWS, COLUMNS)))
    assert factor([BATCH, 2, 3, h, w], axes) == (Batch(), Fixed(2), Fixed(3), ROWS, COLUMNS)
    assert factor([BATCH, 6, h, w], (Batch(), Fixed(2), Fixed(3), ROWS, COLUMNS)) == axes
    assert factor([BATCH, 6, h, w], (Batch(), Fixed(6), Positions((ROWS, COLUMNS)))) == axes
    assert factor([BATCH, 1, 6, area, 1], axes) == (Batch(), Fixed(1), Fixed(6), Positions((ROWS, COLUMNS)), Fixed(1))
    grouped = factor([BATCH, 2, product([3, h, w])], axes)
    assert isinstance(grouped[2], Mixed)
    assert grouped[2].parts == (Fixed(3), ROWS, COLUMNS)
    with pytest.raises(Unknown, match="cannot be followed"):
        factor([BATCH, 4, 3, area], axes)
    with pytest.raises(Unknown, match="cannot be followed"):
        factor([BATCH, 6, 49], axes)
    assert describe(axes) == "(batch, 6, height/8, width/8)"


def test_geometry_of_a_small_net(rng: np.random.Generator) -> None:
    d = Draft(rng)
    x = d.op("MaxPool", d.conv(d.x, k=(7, 5), strides=[2, 2]), kernel_shape=[2, 2], strides=[2, 2])
    found = geometry(analysed(d.model(d.pooled(x)))[1])
    assert found.stride == found.alignment == (4, 4)
    assert found.receptive_field == (9, 7)
    assert (found.min_height, found.min_width) == (9, 7)
    assert found.halo == (0, 0, 5, 3)


def test_top_k_needs_k_positions(rng: np.random.Generator) -> None:
    d = Draft(rng)
    shape = d.op("Concat", d.op("Shape", d.x, end=2), d.const([-1]), axis=0)
    y = d.ops("TopK", d.op("Reshape", d.x, shape), d.const([10]), outputs=2, axis=2)[0]
    found = geometry(analysed(d.model(y))[1])
    assert (found.min_height, found.min_width) == (4, 4)


def test_folding_leaves_nothing_that_depends_on_constants_alone(rng: np.random.Generator) -> None:
    """Standardised weights: computed once, and the same numbers as at run time."""
    d = Draft(rng)
    weight = d.weights(4, 3, 3, 3)
    centred = d.op("Sub", weight, d.reduce("ReduceMean", weight, [1, 2, 3]))
    scale = d.op("Sqrt", d.reduce("ReduceMean", d.op("Mul", centred, centred), [1, 2, 3]))
    model = d.model(d.pooled(d.op("Conv", d.x, d.op("Div", centred, scale))))
    folded = model.clone()
    fold_constants(folded)
    assert [node.op_type for node in folded.graph][:2] == ["Conv", "ReduceMean"]
    x = rng.normal(size=(2, 3, 9, 11)).astype(np.float32)
    got, expected = (exactness.session(one).run(None, {"x": x}) for one in (folded, model))
    assert exactness.error(got, expected) <= exactness.BOUND


def test_types_follow_where_a_file_has_none(rng: np.random.Generator) -> None:
    d = Draft(rng, dtype=ir.DataType.FLOAT16)
    model, _ = analysed(
        d.model(d.pooled(d.op("Where", d.op("Greater", d.x, d.const(0.0)), d.x, d.conv(d.x, out=3, k=(1, 1)))))
    )
    types = {node.op_type: node.outputs[0].dtype for node in model.graph}
    assert types["Greater"] == ir.DataType.BOOL
    assert types["Where"] == types["Conv"] == types["ReduceMax"] == ir.DataType.FLOAT16


@pytest.mark.parametrize(
    ("options", "says"),
    [({"size": (32, "w")}, "a height of 32 only"), ({"batch": 1}, "a batch of 1 only")],
)
def test_fixed_sizes_stand_in_the_way(options: dict[str, object], says: str) -> None:
    tiny = TinyClassifier.random(3)
    plan = compile_plan(ir.from_proto(tiny.to_onnx(card(), **options)), card())  # type: ignore[arg-type]
    assert plan.ragged is None
    assert says in str(plan.ragged_obstacles[0])
    assert plan.tiled_obstacles


@pytest.mark.parametrize("name", [PIXELS, "extents", "owned"])
def test_a_network_may_have_values_of_our_names(name: str, rng: np.random.Generator) -> None:
    d = Draft(rng)
    own = d.conv(d.x, pads=[1, 1, 1, 1])
    own.name = name
    plan = compile_plan(d.model(d.pooled(d.conv(own, 4, pads=[1, 1, 1, 1]))), exactness.CARD)
    assert plan.ragged is not None
    assert plan.tiled is not None
    for model in (plan.plain, plan.ragged, plan.tiled.trunk, plan.tiled.head):
        exactness.session(model)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_plan_of_a_hand_made_net(layout: str, rng: np.random.Generator) -> None:
    """Against NumPy in float64, from pixels; garbage around."""
    tiny = TinyClassifier.random(4)
    model_card = card(preprocessing={**card().preprocessing.model_dump(), "layout": layout})
    plan = compile_plan(ir.from_proto(tiny.to_onnx(model_card)), model_card)
    assert plan.ragged is not None
    assert [value.name for value in plan.ragged.graph.inputs] == [PIXELS, "extents"]
    canvas, extents = exactness.canvas_of(rng, [(1, 1), (5, 17), (30, 2), (23, 31)])
    (logits,) = exactness.session(plan.ragged).run(None, {"pixels": canvas, "extents": extents})
    for row, sample, (_, _, h, w) in zip(logits, canvas, extents, strict=True):
        expected = tiny.logits(sample[:h, :w], model_card.preprocessing)
        assert np.abs(row - expected).max() <= exactness.BOUND * np.abs(expected).max()


def test_a_card_that_does_not_fit_is_refused() -> None:
    with pytest.raises(FrontError, match="channels"):
        compile_plan(ir.from_proto(TinyClassifier.random(1).to_onnx(card())), card("L"))


def test_a_map_for_an_output_stands_in_the_way(rng: np.random.Generator) -> None:
    d = Draft(rng)
    plan = compile_plan(d.model(d.conv(d.x)), exactness.CARD)
    assert plan.ragged is None
    assert "is a map" in str(plan.ragged_obstacles[0])


def test_every_value_is_in_the_analysis(rng: np.random.Generator) -> None:
    d = Draft(rng)
    model, analysis = analysed(d.model(d.pooled(d.conv(d.x))))
    for node in model.graph:
        for value in node.outputs:
            assert isinstance(analysis.domain[value], Tensor)
    assert analysis.levels() == {Level(side, 1, offset) for side in ("height", "width") for offset in (-1, -3)}
