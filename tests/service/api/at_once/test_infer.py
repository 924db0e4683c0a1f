"""Inference that is answered outside of everything else: the same bytes as further in; what is odd is left to what is inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from service.api.at_once.roads import AtOnce
from service.runtime.session import Session
from tests.asgi import Asking, ask

PATH = "/v2/models/colour/infer"
SHAPE = (1, 3, 4, 5)


def worded(shape: tuple[int, ...] = SHAPE, *, binary: bool = True, **members: object) -> bytes:
    given = {
        "name": "images",
        "shape": shape,
        "datatype": "FP32",
        "parameters": {"binary_data_size": 4 * int(np.prod(shape))},
    }
    outputs = [{"name": name, "parameters": {"binary_data": binary}} for name in ("probabilities", "logits")]
    return orjson.dumps({"inputs": [given], "outputs": outputs, **members})


def post(json: bytes, *tail: bytes | None, path: str = PATH, length: int | None = None, **headers: str) -> Asking:
    """Word a request whose first piece has the JSON and the beginning of the numbers."""
    pieces = [json + (tail[0] or b""), *tail[1:]]
    said = {"inference_header_content_length": str(len(json)), **headers}
    return Asking(path, pieces, length=length, headers=said)


def asked(app: FastAPI, *requests: Asking) -> int:
    """Ask one after the other. Returns how many went further in."""
    return ask(app, *requests, at_once=AtOnce(app))


def numbers(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE) -> bytes:
    return rng.standard_normal(shape).astype(np.float32).tobytes()


@pytest.mark.parametrize("shape", [SHAPE, (5, 3, 4, 5), (1, 3, 1, 1)], ids=str)
def test_second_of_a_kind_is_answered_outside_and_as_further_in(
    app: FastAPI, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    json = worded(shape, id="order-66")
    first = post(json, numbers(rng, shape))
    x = numbers(rng, shape)
    second, inside = post(json, x, x_request_id="mine"), post(json, x)
    assert asked(app, first, second) == 1
    ask(app, inside)
    assert (second.status, inside.status) == (200, 200)
    assert second.body == inside.body  # the same kernels, alone in their tick
    assert set(second.headers) == set(inside.headers)
    assert second.headers[b"x-request-id"] == b"mine"
    length = int(second.headers[b"inference-header-content-length"])
    document = orjson.loads(second.body[:length])
    assert document["id"] == "order-66"
    p = np.frombuffer(second.body[length:], np.float32)[: shape[0] * document["outputs"][0]["shape"][1]]
    assert np.abs(p.reshape(shape[0], -1).sum(1) - 1).max() < 1e-5


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"x_request_timeout": "soon"}, 400),
        ({"x_request_timeout": "1e-9"}, 504),
        ({"content_encoding": "gzip"}, 400),
        ({"inference_header_content_length": "7"}, 400),
        ({"inference_header_content_length": "99999"}, 400),
        ({"inference_header_content_length": "-1"}, 400),
        ({"accept_encoding": "gzip"}, 200),
    ],
    ids=str,
)
def test_headers_that_matter_are_read_further_in(
    app: FastAPI, rng: np.random.Generator, change: dict[str, str], status: int
) -> None:
    json = worded()
    odd, good = post(json, numbers(rng), **change), post(json, numbers(rng))
    assert asked(app, post(json, numbers(rng)), odd, good) == 2
    assert odd.status == status
    assert good.status == 200


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_body_in_pieces_is_read_further_in(app: FastAPI, rng: np.random.Generator, cut: int) -> None:
    json, x = worded(), numbers(rng)
    whole, pieces = post(json, x), post(json, x[:cut], x[cut:])
    assert asked(app, whole, pieces) == 2
    assert pieces.body == whole.body


def test_too_few_and_too_many_numbers_are_refused_further_in(app: FastAPI, rng: np.random.Generator) -> None:
    json, x = worded(), numbers(rng)
    fewer, more, good = post(json, x[:-4]), post(json, x + x[:4]), post(json, x)
    assert asked(app, post(json, x), fewer, more, good) == 3
    assert (fewer.status, more.status, good.status) == (400, 400, 200)


def test_outputs_in_json_are_worded_further_in(app: FastAPI, rng: np.random.Generator) -> None:
    json = worded(binary=False)
    assert asked(app, post(json, numbers(rng)), post(json, numbers(rng))) == 2


def test_time_limit_in_the_parameters_is_kept_further_in(app: FastAPI, rng: np.random.Generator) -> None:
    json = worded(parameters={"timeout": 1})
    late = post(json, numbers(rng))
    assert asked(app, late, post(json, numbers(rng))) == 2
    assert late.status == 504


@pytest.mark.parametrize("path", ["/v2/models/nobody/infer", "/v2/models/colour/versions/7/infer"])
def test_unknown_model_is_a_404_further_in(app: FastAPI, rng: np.random.Generator, path: str) -> None:
    json = worded()
    lost = post(json, numbers(rng), path=path)
    assert asked(app, post(json, numbers(rng)), lost) == 2
    assert lost.status == 404


def test_version_that_is_served_is_answered_outside(app: FastAPI, rng: np.random.Generator) -> None:
    json = worded()
    versioned = post(json, numbers(rng), path="/v2/models/colour/versions/1/infer")
    assert asked(app, post(json, numbers(rng)), versioned) == 1
    assert versioned.status == 200


def test_client_that_goes_away_is_answered_nothing(app: FastAPI, rng: np.random.Generator) -> None:
    json, x = worded(), numbers(rng)
    gone = post(json, x[:8], None, length=len(json) + len(x))
    assert asked(app, post(json, x), gone) == 2
    assert gone.sent == []


def test_failing_run_is_a_500_further_in_and_counted_once(
    app: FastAPI, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    json = worded()
    assert asked(app, post(json, numbers(rng))) == 1
    statistics = app.state.poolserve.repository.find("colour", None).statistics
    before: Any = statistics.page()["inference_stats"]

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    broken = post(json, numbers(rng))
    with monkeypatch.context() as patch:
        patch.setattr(Session, "run", fail)
        assert asked(app, broken) == 1
    assert broken.status == 500
    assert b"secret" not in broken.body
    assert asked(app, post(json, numbers(rng))) == 0
    after: Any = statistics.page()["inference_stats"]
    assert after["fail"]["count"] == before["fail"]["count"] + 1
    assert after["success"]["count"] == before["success"]["count"] + 1


def test_everything_else_passes(app: FastAPI) -> None:
    live = Asking("/v2/health/live", [b""])
    live.scope["method"] = "GET"
    assert asked(app, live) == 1
    assert live.status == 200
