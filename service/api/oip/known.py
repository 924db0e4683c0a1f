"""What is remembered of inference requests: clients send the same JSON again and again, with other numbers behind it.

What was read of it, and what stands before the numbers in its answer, are the same then: after the same bytes, numbers of the same
form lead to outputs of the same shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.api.intake import Body
from service.api.numbers import Form
from service.api.oip import images
from service.codecs.oip.request import Request
from service.codecs.oip.response import Response, write_numbers
from service.runtime.batcher import Answer
from service.runtime.model import Model

_MAX_JSON = 2048
_MAX_KNOWN = 256
"""Requests that are remembered of each model, and the bytes of their JSON."""

_SMALL_BODY = 2**20
"""Bytes of a body that is copied to be remembered by; in a larger one the numbers are what costs."""

_SMALL_ANSWER = 2**14
"""Bytes of numbers up to which an answer's JSON is remembered, too."""


@dataclass(slots=True)
class Known:
    """A request without its numbers.

    Attributes:
        request: as it was read; its inputs hold nothing.
        form: of its numbers.
        text: the JSON of its answer; None where that is not yet known, or not the same each time.
        answer_length: bytes of its answer, JSON and numbers.
    """

    request: Request
    form: Form
    text: bytes | None = None
    answer_length: int = 0

    def learn_answer(self, response: Response) -> None:
        """Remember the JSON of an answer, if the same request always has the same: all of its outputs are numbers, behind it."""
        length, request = response.header_length, self.request
        if length is None or len(response.buffers) > 1 or len(response.buffers[0]) - length > _SMALL_ANSWER:
            return
        outputs = request.outputs
        if request.binary if outputs is None else all(wanted.binary and not wanted.classes for wanted in outputs):
            self.text = bytes(response.buffers[0][:length])
            self.answer_length = len(response.buffers[0])

    def answer(self, model: Model, answers: Sequence[Answer]) -> tuple[int, bytes]:
        """Write an answer whose JSON is known. Returns the bytes of its JSON, and all of it."""
        assert self.text is not None  # the caller has asked
        parts: list[bytes | memoryview] = [self.text]
        for name in images.wanted_names(model, self.request):
            parts += [write_numbers(images.output_of(model, name, answer)) for answer in answers]
        return len(self.text), b"".join(parts)


def recall(model: Model, body: Body, header_length: int | None) -> Known | None:
    """Give what is known of a request whose JSON has come before.

    Args:
        model: that it is for.
        body: not compressed.
        header_length: bytes of JSON at its beginning; None: all of it.
    """
    if header_length is None or header_length > _MAX_JSON or len(body) > _SMALL_BODY:
        return None
    known: Known | None = model.remembered.get(bytes(body[:header_length]))
    if known is None or len(body) - header_length != known.form.length:
        return None  # whatever is wrong with it, the reader says it
    return known


def learn(model: Model, body: Body, header_length: int | None, request: Request, form: Form) -> Known | None:
    """Remember a request whose numbers are all that is behind its JSON; None where it is not such a one."""
    if not header_length or header_length > _MAX_JSON or len(body) - header_length != form.length:
        return None
    known = model.remembered[bytes(body[:header_length])] = Known(request._replace(inputs={}), form)
    if len(model.remembered) > _MAX_KNOWN:
        model.remembered.popitem(last=False)
    return known
