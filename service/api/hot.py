"""The hot road of tensor requests: plain ASGI, so that pooling sixteen numbers costs little more than answering at all.

A request goes headers → body → arrays → plan → result → answer. What is small happens at once on the event loop, which is
faster than any hand-over; what is large is admitted as a model's requests are, and happens in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import templates
from service.api.accept import Written, choose
from service.api.answers import DEFAULTS, Answer, write_answer
from service.api.course import in_thread
from service.api.intake import Body, Said, filling, read_body, read_headers
from service.api.parameters import read_query
from service.api.repeats import Repeats
from service.api.sending import send_answer
from service.api.state import State
from service.api.tensors import Asked, Kind, kind_of_body, read_request
from service.api.timing import Timing
from service.api.turns import breath
from service.codecs.tensors.document import Document, parse
from service.codecs.tensors.members import Members
from service.codecs.tensors.nested import NeedsWalk
from service.codecs.tensors.npy import is_plain
from service.errors import DeadlineExceeded, PayloadTooLarge, ServiceError
from service.reader.channel import Task
from service.reader.slots import MAX_BODY
from service.runtime.admission import Ticket
from service.runtime.pooling.given import Action
from service.runtime.pooling.pooler import Course
from service.runtime.pooling.prepared import Pooled
from service.runtime.pooling.sessions import NotBuilt
from service.settings import Settings

ACTIONS: dict[str, Action] = {"/v1/pool": "pool", "/v1/pool/gradient": "gradient", "/v1/unpool": "unpool"}
"""What each path does."""

SMALL_WORK = 50_000
"""Cells that are pooled on the event loop: below 0.1 ms, which a hand-over to a thread and back costs too."""

_SMALL_BODY = 2**16
"""Bytes that are parsed on the event loop, 0.2 ms of JSON; above it a request is admitted before its body is read."""

_PLAIN_BODY = 2**22
"""Bytes of .npy files that are read there, though they must be copied: 1 ms. Others, and raw numbers, are only looked at."""

_TURN_BODY = 2**22
"""Bytes of JSON that are read there too, in turns (turns.py): 6 ms. What is larger is read by another process, if that has time."""

_TURN_WORK = 2**18
"""Cells that are pooled there: 0.5 ms; to write as many as text takes 5."""


class _Call(NamedTuple):
    """A request, but for its body.

    Attributes:
        deadline: on the clock of `time.monotonic`.
        timing: is added to.
    """

    action: Action
    kind: Kind
    said: Said
    query: Mapping[str, object]
    receive: Receive
    deadline: float
    timing: Timing


class _Plan(NamedTuple):
    """A request that is read and found to be possible."""

    asked: Asked
    prepared: Sequence[Course]
    work: int
    written: Written
    named: bool


class Hot:
    """Pure ASGI, inside of `Boundary`, which answers what fails; everything but ACTIONS passes through.

    Attributes:
        repeats: what small requests have left for those that differ in their numbers only.
    """

    def __init__(self, app: ASGIApp, *, state: State) -> None:
        """Stand before an application.

        Args:
            app: what is inside.
            state: the app's.
        """
        self.app = app
        self._state = state
        self._settings = state.settings
        self._pooler = state.pooler
        self._admission = state.pool_admission
        self._turns = state.turns
        self._templates = templates.Templates(max_elements=self._settings.max_tensor_elements)
        self.repeats = Repeats(max_body=self._settings.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        action = ACTIONS.get(scope["path"]) if scope["type"] == "http" else None
        if action is None or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        timing = Timing()
        headers, buffers = await self._answer(action, scope, receive, timing)
        headers.append(timing.header())
        await send_answer(send, headers, buffers)

    async def _answer(self, action: Action, scope: Scope, receive: Receive, timing: Timing) -> Answer:
        """Take a request from its headers to its answer.

        Raises:
            ServiceError: any of the tree in errors.py. ClientDisconnect: the client went away.
        """
        said = read_headers(scope["headers"], self._settings)
        deadline = time.monotonic() + said.limit_s
        query = read_query(scope["query_string"])
        kind = kind_of_body(said.content_type, query)
        call = _Call(action, kind, said, query, receive, deadline, timing)
        ticket: Ticket | None = None
        answered = False
        try:
            if said.length is None or said.length > _SMALL_BODY:
                ticket = self._admission.admit(said.limit_s, said.length)
            elif self._admission.waiting:
                self._admission.refuse(said.limit_s)
            whole = kind not in {"json", "npy", "npz", "raw"}
            # Raw numbers may be none at all: how many there are, their shape says.
            body = await read_body(receive, said, self._settings, whole=whole, fill=filling(scope), empty=kind == "raw")
            quick = _is_quick(kind, body)
            if ticket is not None:
                ticket.begin()
            elif not quick:
                ticket = self._begun(said)
            if kind == "json" and not quick and len(body) <= _TURN_BODY:
                plan, answer = await self._in_turn(call, body)
            else:
                plan = self._plan(call, body) if quick else await self._planned(call, body)
                # Who is alone would only wait for the thread; nothing is to be written but what lies there.
                alone = ticket is not None and self._admission.waiting == 1 and plan.written in {"npy", "raw"}
                answer = self._run_at_once(call, plan, most=_TURN_WORK if alone else SMALL_WORK)
            if answer is None and ticket is None:
                ticket = self._begun(said)
            if ticket is not None:
                ticket.weigh(plan.work, 0)
            if answer is None:
                answer = await in_thread(self._state, partial(self._run, call, plan), receive, deadline, timing)
            answered = True
            self._learn(call, body, plan)
            return answer
        finally:
            if ticket is not None:
                ticket.leave(answered=answered)

    async def _in_turn(self, call: _Call, body: Body) -> tuple[_Plan, Answer | None]:
        """Take JSON of some megabytes over the event loop in steps of some milliseconds; what needs longer goes elsewhere."""
        with suppress(NeedsWalk):
            async with self._turns.taken(body, call.receive, call.deadline, call.timing) as members:
                known: Document | Members
                if members is not None:
                    known = members
                else:
                    with call.timing.measured("decode"):
                        known = parse(body, max_elements=self._settings.max_tensor_elements)
                    known.walk = False
                    await breath()
                plan = self._plan(call, known)
                return plan, self._run_at_once(call, plan, most=_TURN_WORK)
        return await self._planned(call, body), None

    async def _planned(self, call: _Call, body: Body) -> _Plan:
        """Read what takes long: JSON in another process if that has time, all else in a thread."""
        members: object | None = None
        if call.kind == "json" and len(body) <= MAX_BODY:
            members = await self._turns.apart(Task.MEMBERS, body, call.deadline, call.timing)
        assert members is None or isinstance(members, Members)  # by its task
        read = partial(self._plan, call, members or body)
        return await in_thread(self._state, read, call.receive, call.deadline, call.timing)

    def _begun(self, said: Said) -> Ticket:
        ticket = self._admission.admit(said.limit_s, said.length)
        ticket.begin()
        return ticket

    def _run_at_once(self, call: _Call, plan: _Plan, *, most: int) -> Answer | None:
        """Run on the event loop; None where it is too much, or the first of its kind."""
        if plan.work < most:
            with suppress(NotBuilt):
                return self._run(call, plan)
        return None

    def _plan(self, call: _Call, body: Body | Document | Members) -> _Plan:
        """Read the body and have every operator of it prepared; whatever is wrong with the request is found here."""
        with call.timing.measured("decode"):
            return self._prepare(call, self._read(call, body))

    def _prepare(self, call: _Call, asked: Asked) -> _Plan:
        written, named = choose(call.said.accept, DEFAULTS[asked.form])
        tensor = asked.tensor
        prepared: list[Course] = []
        work = size = 0
        for place, job in enumerate(asked.jobs):
            try:
                one = self._pooler.prepare(call.action, job.op, job.parameters, job.arrays, tensor.shape, tensor.dtype)
            except ServiceError as error:
                _name_member(error, asked, place)
                raise
            prepared.append(one)
            work, size = work + one.work, size + one.size
        if asked.many:
            _check_all(work, size, self._settings)
        return _Plan(asked, prepared, work, written, named)

    def _read(self, call: _Call, body: Body | Document | Members) -> Asked:
        """Read the body: at once if its members were seen before."""
        content_type, query = call.said.content_type, call.query
        if call.kind != "json" or query or not isinstance(body, bytes) or len(body) > templates.MAX_BODY:
            return read_request(call.kind, body, content_type, dict(query), self._settings)
        asked = self._templates.read(body)
        if asked is None:
            asked = read_request(call.kind, body, content_type, {}, self._settings)
            self._templates.learn(body, asked)
        return asked

    def _learn(self, call: _Call, body: Body, plan: _Plan) -> None:
        """Remember a small request that was answered."""
        plain = call.action == "pool" and call.kind == "json" and plan.written == "json" and not call.query
        if plain and isinstance(body, bytes) and plan.work < SMALL_WORK:
            self.repeats.learn(body, plan.asked, plan.prepared[0])

    def _run(self, call: _Call, plan: _Plan) -> Answer:
        """Pool, and write the answer."""
        timing, deadline = call.timing, call.deadline
        started = time.monotonic()
        if started > deadline:
            raise DeadlineExceeded("the time limit passed before the tensor was pooled")
        asked = plan.asked
        results: list[Pooled] = []
        for place, prepared in enumerate(plan.prepared):
            try:
                results.append(prepared.run(asked.tensor, deadline))
            except ServiceError as error:
                _name_member(error, asked, place)
                raise
        ended = time.monotonic()
        timing.infer = ended - started
        answer = write_answer(
            call.action, asked, results, plan.written, named=plan.named, max_pixels=self._settings.max_pixels
        )
        timing.encode = time.monotonic() - ended
        return answer


def _check_all(work: int, size: int, settings: Settings) -> None:
    """Refuse what every operator of a request is allowed by itself, and all of them together are not.

    Raises:
        PayloadTooLarge: 413.
    """
    if work > settings.max_pool_cells:
        most = settings.max_pool_cells
        raise PayloadTooLarge(f"ops: expected regions of at most {most} cells in all together, these have {work}")
    if size > settings.max_tensor_elements:
        most = settings.max_tensor_elements
        raise PayloadTooLarge(f"ops: expected at most {most} numbers in all answers together, these would have {size}")


def _is_quick(kind: Kind, body: Body) -> bool:
    """Whether reading a body takes next to no time, whatever is in it: small files inflate, small pictures are large ones."""
    if kind == "npy":
        return len(body) <= _PLAIN_BODY or is_plain(body)
    return kind == "raw" or (kind == "json" and len(body) <= _SMALL_BODY)


def _name_member(error: ServiceError, asked: Asked, place: int) -> None:
    if asked.many:
        error.message = f"ops[{place}]: {error.message}"
