"""/v2/models/…/infer at once: JSON that is known, before numbers for the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import lru_cache, partial

from starlette.types import Scope

from service.api.at_once.reply import CHANGING, Pending, Reply, reply
from service.api.inference import Inference, ModelParameters
from service.api.oip.headers import HEADER_LENGTH
from service.api.oip.infer import BINARY, PATH, WORTH
from service.api.oip.known import Known, recall
from service.api.state import State
from service.runtime.batcher import Answer
from service.runtime.model import Model

_NO_PARAMETERS = ModelParameters()

_MAX_DIGITS = 4
"""Of the length of JSON that is remembered."""


class InferAtOnce:
    """The road of the Open Inference Protocol."""

    def __init__(self, state: State) -> None:
        """Begin.

        Args:
            state: the app's.
        """
        self._state = state
        self._limit_s = state.settings.timeout_s

    def answer(self, scope: Scope, body: bytes) -> Pending | None:
        """Have numbers run in the next tick."""
        asked, headers = _asked(scope["path"]), scope["headers"]
        said = None if asked is None else _said(headers)
        if asked is None or said is None:
            return None
        started = time.monotonic()
        model = self._state.repository.find(*asked)
        length, compressible = said
        known = recall(model, body, length)
        if known is None or known.text is None or known.request.parameters or model.admission.waiting:
            return None
        tick = known.form.tick
        if tick is None or (compressible and known.answer_length >= WORTH):
            return None
        # A copy of the numbers, in which they are aligned.
        futures = [tick.submit(image, started + self._limit_s) for image in known.form.images(body[length:])]
        if len(futures) == 1:
            return Pending(futures[0], partial(_word_one, model, known, headers, started))
        return Pending(asyncio.gather(*futures), partial(_word, model, known, headers, started))


def _word_one(model: Model, known: Known, headers: list[tuple[bytes, bytes]], started: float, answer: Answer) -> Reply:
    return _word(model, known, headers, started, (answer,))


def _word(
    model: Model, known: Known, headers: list[tuple[bytes, bytes]], started: float, answers: Sequence[Answer]
) -> Reply:
    inference = Inference(_NO_PARAMETERS, model, answers=answers)
    length, content = known.answer(model, answers)
    timing = inference.server_timing()
    now = time.monotonic()
    output_s = now - inference.finished_at
    model.statistics.succeed(answers, total_s=now - started, input_s=0.0, output_s=output_s)
    return reply(headers, BINARY[1], timing, content, b"%b: %d\r\n" % (HEADER_LENGTH, length))


@lru_cache(256)
def _asked(path: str) -> tuple[str, str | None] | None:
    """Read a path: a model's name and version; None where it is no inference."""
    found = PATH.fullmatch(path)
    return None if found is None else (found[1], found[2])


def _said(headers: list[tuple[bytes, bytes]]) -> tuple[int, bool] | None:
    """Read how many bytes of JSON stand before the numbers, and whether the answer may be compressed.

    None where the headers say anything else that matters.
    """
    length: int | None = None
    compressible = False
    for name, value in headers:  # lower case, as ASGI has them
        if name == HEADER_LENGTH:
            if length is not None or not value.isdigit() or len(value) > _MAX_DIGITS:
                return None
            length = int(value)
        elif name == b"accept-encoding":
            compressible = True
        elif name in CHANGING:
            return None
    return None if length is None else (length, compressible)
