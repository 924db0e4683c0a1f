"""Merging of partial states: random partitions of a map, any order, against float64 NumPy over the whole map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphs.anysize.states import Merger, State

BOUND = 1e-13
"""Relative error of what is summed; maxima and top-k must be equal."""

K = 5


def parts(rng: np.random.Generator, cells: int) -> list[np.ndarray]:
    """Give every cell to one of 1 to 9 tiles, at random; some tiles may own nothing. Tiles come in random order."""
    count = int(rng.integers(1, 10))
    owner = rng.integers(0, count + 2, cells)
    tiles = [np.flatnonzero(owner == tile) for tile in range(count + 2)]
    return [tiles[i] for i in rng.permutation(len(tiles))]


def merged(
    states: list[State], give: Callable[[np.ndarray], dict[str, np.ndarray]], rng: np.random.Generator, x: np.ndarray
) -> dict[str, np.ndarray]:
    merger = Merger(states)
    for part in parts(rng, x.shape[-1]):
        merger.add(give(x[..., part]))
    return merger.result()


def features(rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """(1,C,P)"""
    return rng.normal(rng.normal(), scale, size=(1, int(rng.integers(1, 6)), int(rng.integers(K, 300))))


def close(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(got, expected, rtol=BOUND, atol=BOUND * max(1e-300, float(np.abs(expected).max())))


@pytest.fixture(params=range(8))
def repeated(request: pytest.FixtureRequest) -> int:
    """Each claim over several random partitions."""
    return int(request.param)


@pytest.mark.usefixtures("repeated")
class TestRandomPartitions:
    def test_sum(self, rng: np.random.Generator) -> None:
        x = features(rng)
        close(merged([State("sum", ("s",))], lambda part: {"s": part.sum(-1)}, rng, x)["s"], x.sum(-1))

    def test_maximum_and_minimum_are_exact(self, rng: np.random.Generator) -> None:
        x = features(rng).astype(np.float32)
        got = merged(
            [State("max", ("top",)), State("min", ("bottom",))],
            lambda part: {"top": part.max(-1, initial=-np.inf), "bottom": part.min(-1, initial=np.inf)},
            rng,
            x,
        )
        np.testing.assert_array_equal(got["top"], x.max(-1))
        np.testing.assert_array_equal(got["bottom"], x.min(-1))
        assert got["top"].dtype == np.float32

    @pytest.mark.parametrize("largest", [True, False])
    def test_top_k_is_exact_with_ties(self, rng: np.random.Generator, largest: bool) -> None:
        x = rng.integers(-3, 4, size=(1, 4, int(rng.integers(K, 100)))).astype(np.float32)

        def give(part: np.ndarray) -> dict[str, np.ndarray]:
            filler = np.full((1, 4, K), -np.inf if largest else np.inf, np.float32)
            ascending = np.sort(np.concatenate([part, filler], -1), -1)
            return {"v": ascending[..., ::-1][..., :K] if largest else ascending[..., :K]}

        got = merged([State("topk", ("v",), -1, largest)], give, rng, x)["v"]
        ascending = np.sort(x, -1)
        np.testing.assert_array_equal(got, ascending[..., ::-1][..., :K] if largest else ascending[..., :K])

    @pytest.mark.parametrize("scale", [1.0, 300.0])
    def test_exponential_with_values_beyond_the_range_of_exp(self, rng: np.random.Generator, scale: float) -> None:
        x = features(rng, scale)

        def give(part: np.ndarray) -> dict[str, np.ndarray]:
            top = part.max(-1, initial=-1e30)
            weight = np.exp(part - top[..., None])
            # a tile that owns nothing has a maximum that means nothing
            log = np.where(part.shape[-1] == 0, np.nan, top)
            return {"l": log, "z": weight.sum(-1), "lx": log, "zx": (weight * part).sum(-1)}

        got = merged([State("exponential", ("l", "z")), State("exponential", ("lx", "zx"))], give, rng, x)
        top = x.max(-1)
        weight = np.exp(x - top[..., None])
        close(np.log(got["z"]) + got["l"], np.log(weight.sum(-1)) + top)
        mean = (got["zx"] / got["z"]) * np.exp(got["lx"] - got["l"])
        expected = (weight * x).sum(-1) / weight.sum(-1)
        assert np.abs(mean - expected).max() <= BOUND * np.abs(x).max()

    def test_powers_scaled_by_their_maximum(self, rng: np.random.Generator) -> None:
        x = np.abs(features(rng)) * 10.0 ** rng.integers(-100, 100)
        x[..., rng.random(x.shape[-1]) < 0.4] = 0  # tiles that are all zero

        def give(part: np.ndarray) -> dict[str, np.ndarray]:
            top = part.max(-1, initial=0)
            top = np.where(top == 0, 1.0, top)  # the guard of a head against dividing by 0
            return {"l": 7 * np.log(top), "s": ((part / top[..., None]) ** 7).sum(-1)}

        got = merged([State("exponential", ("l", "s"))], give, rng, x)
        top = np.maximum(x.max(-1), 1e-300)
        root = np.exp((np.log(np.maximum(got["s"], 1e-300)) + np.where(got["s"] == 0, 0, got["l"])) / 7)
        expected = top * ((x / top[..., None]) ** 7).sum(-1) ** (1 / 7)
        np.testing.assert_allclose(np.where(got["s"] == 0, 0, root), expected, rtol=1e-12)

    def test_moments_around_a_mean_far_from_zero(self, rng: np.random.Generator) -> None:
        x = 1e6 + features(rng)

        def give(part: np.ndarray) -> dict[str, np.ndarray]:
            n = part.shape[-1]
            mean = part.mean(-1) if n else np.full(part.shape[:-1], np.nan)  # what 0/0 gives
            return {"n": np.array([n]), "m": mean, "v": ((part - mean[..., None]) ** 2).sum(-1)}

        got = merged([State("moments", ("n", "m", "v"))], give, rng, x)
        close(got["m"], x.mean(-1))
        np.testing.assert_allclose(got["v"], ((x - x.mean(-1)[..., None]) ** 2).sum(-1), rtol=1e-8)
        assert got["n"] == x.shape[-1]

    def test_comoments(self, rng: np.random.Generator) -> None:
        x = features(rng)

        def give(part: np.ndarray) -> dict[str, np.ndarray]:
            n = part.shape[-1]
            mean = part.mean(-1, keepdims=True) if n else np.full((*part.shape[:-1], 1), np.nan)
            return {"n": np.array([n]), "m": mean, "c": (part - mean) @ np.swapaxes(part - mean, 1, 2)}

        got = merged([State("comoments", ("n", "m", "c"))], give, rng, x)
        np.testing.assert_allclose(got["c"][0] / (x.shape[-1] - 1), np.atleast_2d(np.cov(x[0])), rtol=1e-11, atol=1e-12)


RULES: list[tuple[State, dict[str, float], dict[str, float]]] = [
    (State("sum", ("s",)), {"s": 1}, {"s": 0}),
    (State("max", ("s",)), {"s": 1}, {"s": -np.inf}),
    (State("min", ("s",)), {"s": 1}, {"s": np.inf}),
    (State("topk", ("s",)), {"s": 1}, {"s": -np.inf}),
    (State("topk", ("s",), largest=False), {"s": 1}, {"s": np.inf}),
    (State("exponential", ("l", "s")), {"l": 2, "s": 1}, {"l": np.nan, "s": 0}),
    (State("moments", ("n", "m", "s")), {"n": 3, "m": 5, "s": 1}, {"n": 0, "m": np.nan, "s": np.nan}),
    (State("comoments", ("n", "m", "s")), {"n": 3, "m": 5, "s": 1}, {"n": 0, "m": np.nan, "s": np.nan}),
]


def arrays(values: dict[str, float]) -> dict[str, np.ndarray]:
    return {name: np.full((1,) if name == "n" else (1, 1, 1), value) for name, value in values.items()}


@pytest.mark.parametrize(("state", "tile", "empty"), RULES, ids=lambda value: getattr(value, "rule", ""))
def test_a_tile_that_owns_nothing_changes_nothing(
    state: State, tile: dict[str, float], empty: dict[str, float]
) -> None:
    for order in ([tile, empty, empty], [empty, empty, tile], [tile]):
        merger = Merger([state])
        for values in order:
            merger.add(arrays(values))
        result = merger.result()
        assert {name: result[name].item() for name in tile} == tile


@pytest.mark.parametrize(("state", "tile", "empty"), RULES, ids=lambda value: getattr(value, "rule", ""))
def test_nan_in_any_tile_gives_nan(state: State, tile: dict[str, float], empty: dict[str, float]) -> None:
    del empty
    for place in range(3):
        merger = Merger([state])
        for index in range(3):
            merger.add(arrays(tile | {"s": np.nan} if index == place else tile))
        assert np.isnan(merger.result()["s"]).all()


def test_infinite_features_are_infinite_or_nan_as_in_one_sum() -> None:
    merger = Merger([State("sum", ("s",)), State("max", ("m",)), State("exponential", ("l", "z"))])
    merger.add({"s": np.array([1.0]), "m": np.array([1.0]), "l": np.array([1.0]), "z": np.array([1.0])})
    # softmax over a map with +∞: ∞ − ∞ is NaN in the whole map too
    merger.add({"s": np.array([np.inf]), "m": np.array([np.inf]), "l": np.array([np.inf]), "z": np.array([np.nan])})
    result = merger.result()
    assert result["s"] == result["m"] == np.inf
    assert np.isnan(result["z"])


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="a state of rule 'moments' has 3 arrays"):
        State("moments", ("n",))
    merger = Merger([State("sum", ("s",))])
    with pytest.raises(ValueError, match="expected one tile or more to merge, got none"):
        merger.result()
    merger.add({"s": np.zeros((1, 3))})
    with pytest.raises(ValueError, match=r"state 's': expected shape \(1, 3\) as before, got \(1, 4\)"):
        merger.add({"s": np.zeros((1, 4))})
    with pytest.raises(KeyError):
        merger.add({"t": np.zeros((1, 3))})
