"""What is answered outside of everything else: the same answers and the same errors as further in, whatever the body does."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from service.api.at_once.roads import AtOnce
from service.runtime.own_input import OwnInput
from service.runtime.session import Session
from tests.asgi import Asking, ask

X = np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5)
BODY = X.tobytes()
QUERY = b"model=colour&shape=3,4,5&dtype=float32"


def post(*pieces: bytes | None, query: bytes = QUERY, length: int = len(BODY), **headers: str) -> Asking:
    return Asking("/v1/classify", pieces, query=query, length=length, headers=headers)


def asked(app: FastAPI, *requests: Asking) -> int:
    """Ask one after the other. Returns how many went further in."""
    return ask(app, *requests, at_once=AtOnce(app))


def test_second_of_a_form_is_answered_outside_and_as_the_first(app: FastAPI) -> None:
    first, second = post(BODY), post(BODY, x_request_id="order-66")
    assert asked(app, first, second) == 1
    for request in (first, second):
        assert request.status == 200
        assert set(request.headers) == {b"content-type", b"content-length", b"server-timing", b"x-request-id"}
    assert first.body == second.body  # worded by one piece of code there, by another here
    assert second.headers[b"x-request-id"] == b"order-66"


@pytest.mark.parametrize(
    ("pieces", "headers", "status"),
    [
        ((BODY[:100], BODY[100:]), {}, 200),
        ((b"", BODY), {}, 200),
        ((BODY[:-1],), {}, 422),
        ((BODY,), {"content_type": "application/json"}, 400),
        ((BODY,), {"content_type": "image/png"}, 422),
        ((BODY,), {"content_encoding": "gzip"}, 415),
        ((BODY,), {"x_request_timeout": "soon"}, 422),
        ((BODY,), {"x_request_timeout": "1e-9"}, 504),
        ((BODY[:100],), {}, 422),
        ((), {}, 408),
    ],
    ids=str,
)
def test_what_is_not_as_expected_is_answered_further_in(
    app: FastAPI, pieces: tuple[bytes, ...], headers: dict[str, str], status: int
) -> None:
    odd, good = post(*pieces, **headers), post(BODY)
    assert asked(app, post(BODY), odd, good) == 2
    assert odd.status == status
    assert good.status == 200


def test_other_length_than_the_form_has_is_said_further_in(app: FastAPI) -> None:
    odd = post(BODY + b"0", length=len(BODY) + 1)
    assert asked(app, post(BODY), odd) == 2
    assert (odd.status, orjson.loads(odd.body)["code"]) == (422, "invalid_tensor")


def test_client_that_goes_away_is_answered_nothing(app: FastAPI) -> None:
    gone = post(BODY[:100], None)
    assert asked(app, post(BODY), gone) == 2
    assert gone.sent == []


def test_failing_run_is_a_500_further_in(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(app, post(BODY)) == 1

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    broken = post(BODY)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "run", fail)
        assert asked(app, broken) == 1
    body = orjson.loads(broken.body)
    assert (broken.status, body["code"]) == (500, "internal")
    assert broken.headers[b"x-request-id"].decode() == body["request_id"]
    assert asked(app, post(BODY)) == 0


def test_what_does_not_run_on_the_event_loop_is_answered_further_in(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(OwnInput, "tick_for", lambda *_: None)
        assert asked(app, post(BODY)) == 1
    app.state.asked.clear()
    assert asked(app, post(BODY), post(BODY)) == 1


def test_everything_else_passes(app: FastAPI) -> None:
    other = post(b"", length=0)
    other.scope |= {"method": "GET", "path": "/health/live", "query_string": b""}
    assert asked(app, post(BODY), other) == 2
    assert orjson.loads(other.body) == {"status": "live"}


def test_queries_that_never_repeat_are_not_kept(app: FastAPI) -> None:
    asked(app, *(post(BODY, query=QUERY + b"&top=%d" % top) for top in range(1, 301)))
    assert len(app.state.asked) <= 256
    long = QUERY + b"&top=" + b"0" * 600 + b"1"
    assert asked(app, post(BODY, query=long)) == 1
    assert long not in app.state.asked
