"""Turns beside another process: who waits has it read there, and what becomes of that process hurts nobody else."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.api.timing import Timing
from service.api.turns import Turns
from service.codecs.oip.declared import Limits
from service.codecs.tensors.document import parse
from service.codecs.tensors.members import Members, read_members
from service.errors import DeadlineExceeded, InvalidTensor
from service.reader.channel import Task
from service.reader.halves import MIN_BODY
from service.reader.reader import Reader, ReaderEnded
from tests.service.api.asgi import stays

LATER = 1e9
BODY = b"{}"


class Beside(Reader):
    """A reader whose process is a list: what is begun is done when the test says so."""

    def __init__(self, slots: int) -> None:
        super().__init__(limits=Limits(10**7, 64), names=())
        self.slots, self.wanted, self.ready = list(range(slots)), 0, True
        self.begun: dict[int, asyncio.Future[object]] = {}

    def want(self) -> None:
        self.wanted += 1

    def take(self) -> int | None:
        return self.slots.pop() if self.slots else None

    def give(self, number: int) -> None:
        self.slots.append(number)

    def begin(self, number: int, task: Task, *parts: bytes | memoryview) -> asyncio.Future[object]:
        self.begun[number] = asyncio.get_running_loop().create_future()
        return self.begun[number]

    def end(self, number: int, come: Members | Exception) -> None:
        future = self.begun.pop(number)
        if not future.done():
            _ = future.set_exception(come) if isinstance(come, Exception) else future.set_result(come)
        self.slots.append(number)
        self.on_free()


READ = read_members(parse(b'{"tensor":[1,2]}', max_elements=9), ())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_who_would_wait_is_read_beside_and_comes_before_who_waits() -> None:
    reader = Beside(1)
    turns, order, leave = Turns(reader), list[tuple[str, bool]](), asyncio.Event()

    async def one(name: str) -> None:
        async with turns.taken(BODY, stays, LATER, Timing()) as members:
            order.append((name, members is READ))
            if name == "first":
                await leave.wait()

    async def course() -> None:
        courses = [asyncio.ensure_future(one(name)) for name in ("first", "beside", "waits", "waits too")]
        await settle()
        assert (list(reader.begun), order) == ([0], [("first", False)])
        assert reader.wanted == 3  # by each that had to wait
        reader.end(0, READ)  # the slot is the next one's at once, the loop is still the first one's
        await settle()
        assert (list(reader.begun), order) == ([0], [("first", False)])
        leave.set()
        await settle()
        assert order == [("first", False), ("beside", True), ("waits too", False)]
        reader.end(0, READ)
        await asyncio.gather(*courses)
        assert order[3:] == [("waits", True)]
        assert reader.slots == [0]

    asyncio.run(course())


def test_what_is_amiss_hurts_its_request_alone() -> None:
    """Errors, an end of the process, and clients that leave while they are read beside, or as they get a slot or the loop."""
    reader = Beside(1)
    turns, done, leave = Turns(reader), list[str](), asyncio.Event()

    async def one(name: str) -> None:
        async with turns.taken(BODY, stays, LATER, Timing()) as members:
            if name == "holds":
                await leave.wait()
            done.append(f"{name} {members is READ}")

    async def course() -> None:
        def begin(name: str) -> asyncio.Task[None]:
            return asyncio.ensure_future(one(name))

        first = begin("holds")
        wrong = begin("wrong")
        await settle()
        reader.end(0, InvalidTensor("ragged"))
        with pytest.raises(InvalidTensor, match="ragged"):
            await wrong
        alone = begin("left alone")
        await settle()
        reader.end(0, ReaderEnded())
        leaving = begin("leaves while it is read")
        waiting = begin("leaves as it gets the slot")
        await settle()
        assert not leaving.cancelled()
        leaving.cancel()
        await settle()
        reader.end(0, READ)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert reader.slots == [0]
        beside = begin("beside")
        await settle()
        reader.end(0, READ)
        await settle()
        last = begin("last")
        await settle()
        leave.set()
        await first
        alone.cancel()  # as it gets the loop
        await settle()
        reader.end(0, READ)
        await asyncio.gather(beside, last)
        assert done[0] == "holds False"
        assert set(done[1:]) >= {"beside True", "last True"}
        async with asyncio.timeout(10), turns.taken(BODY, stays, LATER, Timing()):
            assert reader.slots == [0]

    asyncio.run(course())


def test_a_late_reader_is_not_waited_for_longer_than_the_client_waits() -> None:
    reader = Beside(1)
    turns = Turns(reader)

    async def course() -> None:
        async with turns.taken(BODY, stays, LATER, Timing()):
            with pytest.raises(DeadlineExceeded):
                async with turns.taken(BODY, stays, time.monotonic() + 0.01, Timing()):
                    pass
        large = memoryview(bytearray(b'{"tensor":[' + b"1," * MIN_BODY + b"1]}"))
        reader.end(0, READ)
        with pytest.raises(DeadlineExceeded):  # half of it is read here
            async with turns.taken(large, stays, time.monotonic() + 0.01, Timing()):
                pass
        assert list(reader.begun) == [0]
        reader.end(0, READ)
        async with asyncio.timeout(10), turns.taken(BODY, stays, LATER, Timing()) as members:
            assert members is None

    asyncio.run(course())


def test_who_needs_the_other_process_waits_for_it_before_those_who_need_it_less() -> None:
    reader = Beside(1)
    turns, order = Turns(reader), list[str]()

    async def apart(name: str) -> None:
        read = await turns.apart(Task.PROTOCOL, BODY, LATER, Timing())
        order.append(f"{name} {read is READ}")

    async def other(name: str) -> None:
        async with turns.taken(BODY, stays, LATER, Timing()) as members:
            order.append(f"{name} {members is READ}")

    async def course() -> None:
        async with turns.taken(BODY, stays, LATER, Timing()):
            first = asyncio.ensure_future(apart("first"))
            await settle()
            asking = asyncio.ensure_future(other("asking"))
            leaving, second = asyncio.ensure_future(apart("leaving")), asyncio.ensure_future(apart("second"))
            await settle()
            leaving.cancel()
            reader.end(0, READ)
            await settle()
            assert order == ["first True"]
            reader.end(0, READ)
            await settle()
            assert order == ["first True", "second True"]
            reader.end(0, READ)
            third = asyncio.ensure_future(apart("third"))
            fourth = asyncio.ensure_future(apart("fourth"))
            await settle()
            reader.ready = False  # it has ended
            reader.end(0, ReaderEnded())
            await asyncio.gather(first, second, third, fourth)
            assert sorted(order[2:]) == ["fourth False", "third False"]
        await asking
        assert order[4:] == ["asking True"]
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await turns.apart(Task.PROTOCOL, BODY, LATER, Timing()) is None

    asyncio.run(course())
    assert reader.slots == [0]


def test_without_another_process_nothing_is_read_apart() -> None:
    async def course() -> None:
        assert await Turns().apart(Task.PROTOCOL, BODY, LATER, Timing()) is None

    asyncio.run(course())
