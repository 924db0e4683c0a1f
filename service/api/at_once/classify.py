"""/v1/classify at once: raw numbers for the event loop, of a form that was seen before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

from starlette.types import Scope

from service.api.at_once.reply import CHANGING, Pending, Reply, reply
from service.api.classify import Wording, write_classes
from service.api.fast_path import UNSAID, Asked
from service.api.inference import Inference
from service.runtime.batcher import Answer

_JSON = b"application/json"
_RAW = frozenset(media_type.encode() for media_type in UNSAID)


class ClassifyAtOnce:
    """The road of /v1/classify."""

    def __init__(self, known: Mapping[bytes, Asked], *, limit_s: float) -> None:
        """Begin.

        Args:
            known: what queries were found to ask.
            limit_s: seconds that an answer may take.
        """
        self._known = known
        self._limit_s = limit_s

    def answer(self, scope: Scope, body: bytes) -> Pending | None:
        """Have numbers run in the next tick."""
        asked = self._known.get(scope["query_string"])
        if asked is None or asked.form is None or asked.form.tick is None or len(body) != asked.form.length:
            return None
        headers = scope["headers"]
        for name, value in headers:  # lower case, as ASGI has them
            if name in CHANGING or (name == b"content-type" and value not in _RAW):
                return None
        deadline = time.monotonic() + self._limit_s
        tick = asked.form.tick
        futures = [tick.submit(image, deadline) for image in asked.form.images(body)]
        if asked.wording is not None:
            return Pending(futures[0], partial(_word_one, asked, asked.wording, headers))
        return Pending(asyncio.gather(*futures), partial(_word, asked, headers))


def _word_one(asked: Asked, wording: Wording, headers: list[tuple[bytes, bytes]], answer: Answer) -> Reply:
    inference = Inference(asked.parameters, asked.model, answers=(answer,))
    return reply(headers, _JSON, inference.server_timing(), wording.write(answer))


def _word(asked: Asked, headers: list[tuple[bytes, bytes]], answers: Sequence[Answer]) -> Reply:
    form = asked.form
    assert form is not None  # else nothing ran
    inference = Inference(asked.parameters, asked.model, [(form.height, form.width)] * form.count, answers)
    content = write_classes(inference)
    return reply(headers, _JSON, inference.server_timing(), content)
