"""What is pooled outside of everything else is answered byte by byte as further in, whatever comes."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.at_once.roads import AtOnce
from service.api.repeats import Repeats
from service.app import create_app
from service.runtime.repository import Repository
from service.settings import Settings
from tests.asgi import Asking, ask
from tests.service.api.tensors import MATRIX, POOLED

BODY = orjson.dumps({"op": "max", "kernel": 2, "tensor": MATRIX})
JSON = {"content_type": "application/json"}


@pytest.fixture(scope="module")
def app(model_folder: Path) -> Iterator[FastAPI]:
    made = create_app(values := Settings(models=model_folder, provider="cpu"), Repository.load(values))
    yield made
    for threads in (made.state.poolserve.decoders, made.state.poolserve.poolers):
        threads.shutdown()


class Outside:
    """The application with what is asked before it; `passed` counts the requests that went on to it."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.at_once = AtOnce(app)

    def passed(self, *requests: Asking) -> int:
        return ask(self.app, *requests, at_once=self.at_once)


@pytest.fixture
def outside(app: FastAPI) -> Outside:
    """Knows how to pool 4×4 matrices."""
    made = Outside(app)
    made.passed(post(BODY))
    return made


def post(*pieces: bytes | None, query: bytes = b"", **headers: str) -> Asking:
    return Asking("/v1/pool", pieces, query=query, headers={**JSON, **headers})


def seen(request: Asking) -> tuple[Any, ...]:
    """What a client can tell answers apart by: not the time they took, nor an id that the service has made."""
    if not request.sent:
        return ()
    headers, body = {**request.headers}, request.body
    if headers[b"x-request-id"] != dict(request.scope["headers"]).get(b"x-request-id"):
        made = headers.pop(b"x-request-id")
        assert len(made) == 32
        body = body.replace(made, b"")
    stages = headers.pop(b"server-timing", b"")
    names = [part.partition(b";dur=")[0] for part in stages.split(b", ")]
    return request.status, list(headers.items()), names, body, [message["type"] for message in request.sent]


def test_second_of_a_kind_is_answered_outside_and_as_the_first(app: FastAPI) -> None:
    made = Outside(app)
    body = BODY.replace(b"4", b"4.25")
    first, again, other = (post(content) for content in (body, body, body.replace(b"9", b"-9e-1")))
    assert made.passed(first) == 1
    assert made.passed(again, other) == 0
    assert seen(first) == seen(again)
    assert orjson.loads(other.body)["tensor"] == [[5.0, 7.0], [8.0, 5.0]]


def test_the_callers_id_comes_back(outside: Outside) -> None:
    named, strange = post(BODY, x_request_id="order-66"), post(BODY, x_request_id="order 66")
    assert outside.passed(named, strange) == 0
    assert named.headers[b"x-request-id"] == b"order-66"
    assert len(strange.headers[b"x-request-id"]) == 32


@pytest.mark.parametrize(
    "headers", [{"accept": "*/*"}, {"accept": "application/json"}, {"user_agent": "curl"}], ids=str
)
def test_headers_that_change_nothing_stay_outside(outside: Outside, headers: dict[str, str]) -> None:
    request = post(BODY, **headers)
    assert outside.passed(request) == 0
    assert orjson.loads(request.body)["tensor"] == POOLED


@pytest.mark.parametrize(
    ("pieces", "headers", "status"),
    [
        ((BODY[:9], BODY[9:]), {}, 200),
        ((b"", BODY), {}, 200),
        ((BODY,), {"content_type": "application/json; charset=utf-8"}, 200),
        ((BODY,), {"accept": "application/x-npy"}, 200),
        ((BODY,), {"accept": "text/html"}, 406),
        ((BODY,), {"content_encoding": "identity"}, 200),
        ((gzip.compress(BODY, mtime=0),), {"content_encoding": "gzip"}, 415),
        ((gzip.compress(BODY, mtime=0),), {}, 400),
        ((BODY,), {"content_type": "text/plain"}, 415),
        ((BODY,), {"x_request_timeout": "10"}, 200),
        ((BODY,), {"x_request_timeout": "1e-9"}, 504),
        ((BODY,), {"x_request_timeout": "soon"}, 422),
        ((BODY + b"x",), {}, 400),
        ((BODY[:-1],), {}, 400),
        ((b"",), {}, 400),
        ((BODY.replace(b"9", b"1e400"),), {}, 400),
        ((BODY.replace(b"9", b"1e39"),), {}, 422),
        ((BODY.replace(b"9", b"1e38"),), {}, 200),
        ((BODY.replace(b"9", b'"NaN"'),), {}, 200),
        ((BODY.replace(b"9", b"true"),), {}, 422),
        ((BODY.replace(b",9", b",[9]"),), {}, 422),
        ((BODY.replace(b"[6,1,5,9]", b"[6,1,5,]"),), {}, 400),
    ],
    ids=str,
)
def test_what_is_not_as_expected_is_answered_further_in(
    outside: Outside, pieces: tuple[bytes, ...], headers: dict[str, str], status: int
) -> None:
    odd, good = post(*pieces, **headers), post(BODY)
    assert outside.passed(odd, good) == 1
    assert (odd.status, good.status) == (status, 200)


def test_query_is_read_further_in(outside: Outside) -> None:
    request = post(BODY.replace(b',"kernel":2', b""), query=b"kernel=2")
    assert outside.passed(request) == 1
    assert request.status == 200


def test_client_that_goes_away_is_answered_nothing(outside: Outside) -> None:
    gone = post(BODY[:9], None)
    assert outside.passed(gone) == 1
    assert gone.sent == []


def test_failing_run_is_left_to_what_is_inside(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("secret")

    monkeypatch.setattr(Repeats, "answer", fail)
    request = post(BODY)
    assert outside.passed(request) == 1
    assert request.status == 200


def test_while_there_is_a_crowd_all_go_further_in(outside: Outside, app: FastAPI) -> None:
    ticket = app.state.poolserve.pool_admission.admit(30.0)
    try:
        assert outside.passed(post(BODY)) == 1
    finally:
        ticket.leave(answered=False)
    assert outside.passed(post(BODY)) == 0


def test_body_above_the_limit_is_refused_though_its_kind_is_known(model_folder: Path) -> None:
    values = Settings(models=model_folder, provider="cpu", max_body_bytes=len(BODY))
    small = Outside(create_app(values, Repository.load(values)))
    small.passed(post(BODY))
    large = post(BODY.replace(b"9", b"10"))
    assert small.passed(post(BODY), large) == 1
    assert large.status == 413


def test_only_so_many_kinds_are_kept(app: FastAPI) -> None:
    made = Outside(app)
    bodies = [orjson.dumps({"tensor": [[1.5] * width], "op": "avg", "kernel": 1}) for width in range(1, 100)]
    for body in bodies:
        made.passed(post(body))
    assert made.passed(post(bodies[-1])) == 0
    assert made.passed(post(bodies[0])) == 1


MEMBERS = [
    (b'{"op":"max","kernel":2,"tensor":', b"}"),
    (b'{"tensor":', b',"op":"avg","kernel":2,"stride":1,"padding":1}'),
    (b' {"op" : "min","kernel":2,"ceil_mode":true,"dtype":"float64","tensor" : ', b" }\n"),
    (b'{"op":"sum","kernel":3,"spatial":1,"tensor":', b',"stride":2}'),
    (b'{"op":"gem","kernel":2,"tensor":', b"}"),
    (b'{"op":"max","kernel":2,"dtype":"uint8","tensor":', b"}"),
    (b'{"op":"max","kernel":2,"return_indices":true,"tensor":', b"}"),
    (b'{"op":"max","kernel":2,"nan":"reject","tensor":', b"}"),
    (b'{"op":"avg","tensor":', b"}"),
    (b'{"tensor":', b',"op":"max","kernel":[2,2]}'),
    (b'{"ops":[{"op":"max"}],"kernel":2,"tensor":', b"}"),
    (b'{"op":"max","kernel":2,"layout":"channels_last","tensor":', b"}"),
    (b'{"op":"max","kernel":2,"x":"\\"tensor\\":[1]","tensor":', b"}"),
    (b'{"op":"max","kernel":2,"tensor":', b',"tensor":[[1,2],[3,4]]}'),
]
SHAPES = [(4, 4), (2, 2), (3, 5), (2, 3, 4), (1, 2, 2, 6), (7,), (0,), (2, 0), (1, 1)]
numbers = st.one_of(
    st.integers(0, 9).map(str),
    st.integers(-1000, 1000).map(str),
    st.floats(-1e3, 1e3, width=32).map(repr),
    st.sampled_from([
        "-0", "-0.0", "1e-45", "3.4028235e38", "1e30", "-1e15", "9007199254740993", "18446744073709551615", "1E5", "0.1",
        "18446744073709551616", "1e39", "1e400", "01", "+1", "1.", ".5", "-", "NaN", '"NaN"', '"-Infinity"', "null", "true", "[1]",
        "", " 1 ", "255", "1\n",
    ]),
)  # fmt: skip


def _nested(flat: list[str], shape: tuple[int, ...]) -> str:
    if not shape:
        return flat[0]
    step = len(flat) // shape[0] if shape[0] else 0
    return f"[{','.join(_nested(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0]))}]"


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Mostly requests that are known, with any numbers; some are spoilt."""
    before, behind = draw(st.sampled_from(MEMBERS))
    shape = draw(st.sampled_from(SHAPES))
    count = int(np.prod(shape))
    plain = draw(st.lists(st.integers(0, 99).map(str), min_size=count, max_size=count))
    for place in draw(st.lists(st.integers(0, count - 1), max_size=3)) if count else []:
        plain[place] = draw(numbers)
    body = before + _nested(plain, shape).encode() + behind
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(body)))
        cut = draw(st.integers(0, 3))
        body = (
            body[:place]
            + draw(st.sampled_from([b"", b"[", b"]", b",", b"}", b" ", b"1", b"-", b"x"]))
            + body[place + cut :]
        )
    return body + draw(st.sampled_from([b"", b"", b"", b"\n", b"x", b"]", b"{}", b"\0"]))


headers = st.sampled_from([
    {}, {}, {}, {"x_request_id": "a.b"}, {"x_request_id": "é"}, {"accept": "*/*"}, {"accept": "application/x-npy"},
    {"accept": "application/json;q=0"}, {"accept": "text/html"}, {"content_encoding": "gzip"}, {"x_request_timeout": "5"},
    {"content_type": "application/octet-stream"}, {"content_type": "APPLICATION/JSON"},
])  # fmt: skip


@pytest.fixture(scope="module")
def both(app: FastAPI, model_folder: Path) -> Iterator[tuple[Outside, FastAPI]]:
    """The whole of it after each kind was seen, and an application that answers everything further in."""
    values = Settings(models=model_folder, provider="cpu")
    alone = create_app(values, Repository.load(values))
    made = Outside(app)
    for before, behind in MEMBERS:
        for shape in SHAPES[:7]:
            body = before + _nested(["1"] * int(np.prod(shape)), shape).encode() + behind
            made.passed(post(body))
    yield made, alone
    for threads in (alone.state.poolserve.decoders, alone.state.poolserve.poolers):
        threads.shutdown()


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies(), said=headers, pieces=st.sampled_from([1, 1, 1, 2]))
def test_any_request_is_answered_as_further_in(
    both: tuple[Outside, FastAPI], body: bytes, said: dict[str, str], pieces: int
) -> None:
    outside, alone = both
    parts = [body[: len(body) // pieces], body[len(body) // pieces :]][:pieces] if pieces > 1 else [body]
    short, long = post(*parts, **said), post(*parts, **said)
    outside.passed(short)
    ask(alone, long)
    assert seen(short) == seen(long)
    assert short.status < 500


def test_most_plain_requests_of_a_known_kind_are_answered_outside(
    both: tuple[Outside, FastAPI], rng: np.random.Generator
) -> None:
    outside, alone = both
    for before, behind in MEMBERS[:4]:
        for shape in SHAPES[:5]:
            text = orjson.dumps(
                rng.normal(size=shape, scale=10.0 ** rng.integers(-9, 9)), option=orjson.OPT_SERIALIZE_NUMPY
            )
            learning, short, long = (post(before + text + behind) for _ in range(3))
            outside.passed(learning)
            ask(alone, long)
            if long.status == 200:
                assert outside.passed(short) == 0, (before, shape, text)
                assert seen(short) == seen(learning) == seen(long)
