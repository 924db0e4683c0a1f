"""POST /v1/embed with pictures larger than one canvas: descriptors as of the whole, within what is held at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from export.network import Network
from tests.claims import assert_error, relative_error
from tests.service.api.descriptors import BOUND, POOLS, fill, picture, post
from tests.service.api.exported import png, tensor
from tests.service.api.serving import serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def networks(folder: Path) -> dict[str, Network]:
    return fill(folder)


@pytest.fixture(scope="module")
def tiling(folder: Path, networks: dict[str, Network]) -> Iterator[TestClient]:
    """What has more than 1024 pixels is cut into tiles."""
    with serving(models=folder, max_canvas_pixels=1024, max_tensor_elements=10**5) as made:
        yield made


@pytest.mark.parametrize("size", [(33, 32), (70, 90), (31, 401)], ids=lambda size: "×".join(map(str, size)))
def test_pictures_in_tiles_have_the_descriptors_of_the_whole(
    tiling: TestClient, networks: dict[str, Network], rng: np.random.Generator, size: tuple[int, int]
) -> None:
    pixels = picture(rng, size)
    for model, network in networks.items():
        with torch.no_grad():
            features, own = network.forward_features(tensor(pixels)).double(), network(tensor(pixels))[1].numpy()
        assert relative_error(post(tiling, f"model={model}&normalize=false", pixels), own) <= BOUND
        for query, pool in POOLS.items():
            got = post(tiling, f"model={model}&{query}&normalize=false", pixels)
            assert relative_error(got, pool(features).numpy()) <= BOUND, query
    small = picture(rng, (8, 8))
    both = post(tiling, "model=gap&pool=max", small, pixels, small)
    np.testing.assert_array_equal(both[[0]], post(tiling, "model=gap&pool=max", small))
    np.testing.assert_array_equal(both[[1]], post(tiling, "model=gap&pool=max", pixels))


def test_more_features_than_are_held_at_once_is_a_413(tiling: TestClient) -> None:
    data = png(np.zeros((400, 500, 3), np.uint8))
    response = tiling.post("/v1/embed?model=gap&pool=avg", content=data)
    assert_error(response, 413, "payload_too_large", "at most 100000 numbers (max_tensor_elements)", "6×200×250")
    data = png(np.zeros((60, 60, 3), np.uint8))
    headers = {"X-Request-Timeout": "1e-9"}
    assert_error(tiling.post("/v1/embed?model=gap&pool=avg", content=data, headers=headers), 504, "timeout")
    assert tiling.post("/v1/embed?model=gap&pool=avg", content=data).status_code == 200
    admission = tiling.app.state.poolserve.repository.models["gap"].tiles.admission  # type: ignore[attr-defined]
    assert (admission.waiting, admission.backlog) == (0, 0)
