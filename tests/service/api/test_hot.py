"""The hot road, spoken to as a server does: limits while the body comes, time, clients that go away."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from service.api.state import State
from tests.service.api.asgi import BODY, JSON, LARGE, NPY, answer, ask, length, refusal
from tests.service.api.tensors import POOLED


def test_body_in_pieces_is_one_body(state: State) -> None:
    for headers in ((JSON, length(BODY)), (JSON,)):
        status, found, body = answer(ask(state, *(BODY[i : i + 1] for i in range(len(BODY))), headers=headers)[1])
        assert (status, orjson.loads(body)["tensor"]) == (200, POOLED)
        assert set(found) == {b"content-type", b"content-length", b"server-timing"}


def test_large_body_in_pieces_fills_one_buffer(state: State) -> None:
    pieces = [LARGE[i : i + 50_000] for i in range(0, len(LARGE), 50_000)]
    for headers in ((NPY, length(LARGE)), (NPY,)):
        status, _, body = answer(ask(state, *pieces, headers=headers, query=b"op=max&kernel=200")[1])
        assert status == 200
        assert np.array_equal(np.frombuffer(body[-8:], np.float32), [39_999, 79_999])


def test_small_answer_takes_two_messages(state: State) -> None:
    assert [message["type"] for message in ask(state, BODY)[1]] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize(
    "request_", [{"method": "GET"}, {"path": "/v1/pool/operators"}, {"path": "/v1/classify"}], ids=str
)
def test_everything_else_passes(state: State, request_: dict[str, Any]) -> None:
    assert ask(state, **request_) == (True, [])


def test_length_above_the_limit_is_refused_before_the_body(state: State) -> None:
    _, sent = ask(state, headers=(JSON, (b"content-length", b"400001")))
    assert refusal(sent) == (413, "payload_too_large")
    assert answer(sent)[1][b"connection"] == b"close"


def test_body_that_grows_above_the_limit_is_not_read_on(state: State) -> None:
    assert refusal(ask(state, *[b" " * 100_000] * 50)[1]) == (413, "payload_too_large")
    assert refusal(ask(state, b" " * 400_001)[1]) == (413, "payload_too_large")


def test_body_that_does_not_come_is_a_408(state: State) -> None:
    for headers in ((JSON,), (NPY, length(LARGE))):
        status, _, body = answer(ask(state, b"", headers=headers)[1])
        assert (status, orjson.loads(body)["code"]) == (408, "request_timeout")


def test_empty_body_and_compressed_body(state: State) -> None:
    assert refusal(ask(state, b"", b"", BODY[:0] + b"")[1])[0] == 408
    for encoding in (b"gzip", b"deflate", b"br", b"identity, gzip"):
        sent = ask(state, headers=(JSON, (b"content-encoding", encoding)))[1]
        assert refusal(sent) == (415, "unsupported_encoding")
        assert answer(sent)[1][b"accept-encoding"] == b"identity"
    for encoding in (b"", b" ", b"identity", b"Identity"):
        assert answer(ask(state, BODY, headers=(JSON, (b"content-encoding", encoding)))[1])[0] == 200


@pytest.mark.parametrize("limit", [b"soon", b"-1", b"0", b"nan"])
def test_time_limit_must_be_seconds(state: State, limit: bytes) -> None:
    headers = (JSON, (b"x-request-timeout", limit))
    assert refusal(ask(state, BODY, headers=headers)[1]) == (422, "invalid_parameter")


def test_time_that_has_passed_is_a_504(state: State) -> None:
    late = (b"x-request-timeout", b"1e-9")
    assert refusal(ask(state, BODY, headers=(JSON, late))[1]) == (504, "timeout")
    _, sent = ask(state, LARGE, headers=(NPY, length(LARGE), late), query=b"op=max&kernel=2")
    assert refusal(sent) == (504, "timeout")


@pytest.mark.parametrize("pieces", [(None,), (BODY[:9], None)], ids=["before its body", "within its body"])
def test_client_that_goes_away_is_answered_nothing(state: State, pieces: tuple[bytes | None, ...]) -> None:
    assert ask(state, *pieces) == (False, [])


def test_large_json_goes_out_in_pieces(state: State) -> None:
    """Else a gigabyte of text is one call of the writer's, in which nobody else is answered."""
    sent = ask(state, b'{"op":"max","tensor":[[1]],"output_size":1024}')[1]
    status, headers, body = answer(sent)
    assert status == 200
    assert len(body) == int(headers[b"content-length"])
    assert np.array_equal(orjson.loads(body)["tensor"], np.ones((1024, 1024)))
    assert max(len(message.get("body", b"")) for message in sent) < 2**21
