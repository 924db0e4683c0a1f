"""The reader as a process: it reads as this one would, and whatever becomes of it, nobody waits in vain."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from service.codecs.oip.declared import Limits
from service.codecs.oip.request import Request, read_request
from service.codecs.tensors.members import Members
from service.errors import InternalError, ServiceError
from service.reader import __main__ as process
from service.reader import reader as module
from service.reader import slots
from service.reader.channel import Task
from service.reader.reader import Reader, ReaderEnded
from tests.service.reader.processes import LIMIT_S, assert_alike, run, started, taken, until

MAX_ELEMENTS = 1_000_000
NAMES = {"mask", "boxes", "query"}


async def read(reader: Reader, body: bytes) -> Members:
    members = await reader.begin(taken(reader), Task.MEMBERS, body)
    assert isinstance(members, Members)
    return members


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def random_body(rng: np.random.Generator) -> bytes:
    """A request of random rank, size and dtype, now and then with other tensors, with `ops`, or with something amiss."""
    dtype = str(rng.choice(["float32", "float64", "uint8", "int64", "float16"]))
    tensor = rng.integers(0, 100, rng.integers(0, 6, rng.integers(0, 5))).astype(dtype)
    members: dict[str, object] = {"op": "max", "dtype": dtype, "tensor": tensor.tolist(), "kernel": [2, 2]}
    if rng.random() < 0.3:
        members["mask"] = rng.integers(0, 2, (3, 2)).tolist()
    if rng.random() < 0.3:
        members["ops"] = [{"op": "avg", "boxes": [[0.5, 1, 2, 3]]}, {"op": "lp", "query": [1, 2, 3]}]
    if rng.random() < 0.5:
        broken: list[tuple[str, object]] = [
            ("tensor", [[1, 2], [3]]),
            ("tensor", ["NaN", "Infinity", 1.5]),
            ("tensor", {"shape": [2], "data": [1, 2, 3]}),
            ("tensor", {"shape": [2, 1], "dtype": "int8", "data": [1, -2]}),
            ("tensor", [1e300]),
            ("dtype", "complex64"),
            ("ops", []),
            ("ops", [3]),
            ("query", "text"),
            ("kernel", [[[]]]),
        ]
        name, value = broken[rng.integers(len(broken))]
        members[name] = value
    body = orjson.dumps(members)
    return body[: rng.integers(1, len(body))] if rng.random() < 0.1 else body


def test_it_reads_as_this_process_does(rng: np.random.Generator) -> None:
    read_well = 0

    async def course() -> None:
        nonlocal read_well
        async with started(max_elements=MAX_ELEMENTS, names=NAMES) as reader:
            for _ in range(300):
                body = random_body(rng)
                expected = process.read(Task.MEMBERS, memoryview(body), Limits(MAX_ELEMENTS, 64), NAMES)
                if isinstance(expected, ServiceError):
                    with pytest.raises(type(expected)) as caught:
                        await read(reader, body)
                    assert caught.value.message == expected.message
                    continue
                assert isinstance(expected, Members)
                assert_alike(await read(reader, body), expected)
                read_well += 1

    run(course())
    assert 50 < read_well < 300


def test_each_gets_its_own(rng: np.random.Generator) -> None:
    """As many as there are slots at once, of all sizes, again and again."""

    async def one(reader: Reader) -> None:
        for _ in range(20):
            tensor = rng.normal(size=rng.integers(1, 20_000))
            got = await read(reader, orjson.dumps({"dtype": "float64", "tensor": tensor.tolist()}))
            assert got.tensor.tolist() == tensor.tolist()

    async def course() -> None:
        async with started(max_elements=MAX_ELEMENTS, names=NAMES) as reader:
            await asyncio.gather(*(one(reader) for _ in range(slots.COUNT)))
            assert len(reader._free) == slots.COUNT

    run(course())


def test_who_leaves_does_not_take_the_slot_along() -> None:
    async def course() -> None:
        async with started(max_elements=MAX_ELEMENTS, names=NAMES) as reader:
            freed = list[None]()
            reader.on_free = lambda: freed.append(None)
            for _ in range(5):
                leaving = asyncio.ensure_future(read(reader, b'{"tensor":[1]}'))
                await asyncio.sleep(0)
                leaving.cancel()
                staying = await read(reader, b'{"tensor":[2]}')
                assert staying.tensor.tolist() == [2]
                with pytest.raises(asyncio.CancelledError):
                    await leaving
            await until(lambda: len(reader._free) == slots.COUNT)
            assert len(freed) == 10

    run(course())


def test_one_that_ends_leaves_nobody_waiting_and_is_followed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_REST_S", 0.05)

    async def course() -> None:
        before = descriptors()
        async with started(max_elements=MAX_ELEMENTS, names=NAMES) as reader:
            first = reader.pid
            assert first is not None
            os.kill(first, signal.SIGSTOP)
            waiting = [asyncio.ensure_future(read(reader, b'{"tensor":[1]}')) for _ in range(slots.COUNT)]
            await asyncio.sleep(0)
            os.kill(first, signal.SIGKILL)
            for one in waiting:
                with pytest.raises(ReaderEnded):
                    await one
            assert (reader.pid, reader.take(), is_there(first)) == (None, None, False)
            assert descriptors() == before
            with pytest.raises(ReaderEnded):  # a slot that was taken before
                await reader.begin(0, Task.MEMBERS, b'{"tensor":[1]}')
            reader.want()
            assert reader.pid is None  # it rests
            await asyncio.sleep(0.06)
            reader.want()
            await until(lambda: reader._free)
            assert (await read(reader, b'{"tensor":[7]}')).tensor.tolist() == [7]

    run(course())
    assert "has ended by itself with status -9" in caplog.text


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def fails(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(
    ("module_", "name", "value"),
    [(sys, "executable", "/nowhere/python"), (os, "memfd_create", fails), (socket, "socketpair", fails)],
)
def test_it_is_heard_of_where_none_can_be_started(
    module_: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing stays open."""

    async def course() -> None:
        reader = Reader(limits=Limits(1, 1), names=())
        before = descriptors()
        with monkeypatch.context() as broken:
            broken.setattr(module_, name, value)
            reader.want()
            reader.want()  # within the rest: not tried again
        assert (reader.pid, reader.take()) == (None, None)
        assert descriptors() == before
        reader.close()

    run(course())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no second one could be started" in caplog.text


def test_a_failure_of_its_own_is_internal(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fails(body: memoryview, *, max_elements: int) -> None:
        raise MemoryError

    monkeypatch.setattr(process, "parse", fails)
    with slots.created() as memory:
        (slot, *_) = slots.attach(memory)
    slot.put_result(process.read(Task.MEMBERS, memoryview(b"{}"), Limits(1, 1), ()))
    assert "MemoryError" in caplog.text

    async def course() -> None:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        module._settle(future, slot)
        with pytest.raises(InternalError):
            await future

    run(course())


def test_requests_of_the_protocol_are_read_too(rng: np.random.Generator) -> None:
    values = rng.normal(size=(3, 200)).astype(np.float32)
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [3, 200], "data": values.tolist()},
        {"name": "y", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
    ]
    body = orjson.dumps({"id": "7", "inputs": inputs, "outputs": [{"name": "z", "parameters": {"classification": 3}}]})

    async def course() -> None:
        async with started(max_elements=MAX_ELEMENTS, names=NAMES) as reader:
            got = await reader.begin(taken(reader), Task.PROTOCOL, body)
            expected = read_request(body, None, reader.limits)
            assert isinstance(got, Request)
            assert got._replace(inputs={}) == expected._replace(inputs={})
            assert got.inputs["y"] == expected.inputs["y"]
            assert (got.inputs["x"].tensor == values).all()
            with pytest.raises(ServiceError, match=r"inputs\[0\]"):
                await reader.begin(taken(reader), Task.PROTOCOL, body.replace(b"]]", b"],7]", 1))

    run(course())


def test_ctrl_c_is_for_the_other_process() -> None:
    async def course() -> None:
        async with started(max_elements=MAX_ELEMENTS, names=NAMES) as reader:
            assert reader.pid is not None
            os.kill(reader.pid, signal.SIGINT)
            assert (await read(reader, b'{"tensor":[7]}')).tensor.tolist() == [7]

    run(course())


def test_it_ends_with_the_process_that_started_it() -> None:
    code = (
        "import asyncio\n"
        "from service.codecs.oip.declared import Limits\n"
        "from service.reader.reader import Reader\n"
        "async def main():\n"
        "    reader = Reader(limits=Limits(1, 1), names=('mask',))\n"
        "    reader.want()\n"
        "    print(reader.pid, flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_there(pid)
        process.kill()
    limit = time.monotonic() + LIMIT_S
    while is_there(pid) and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < limit
        time.sleep(0.01)
