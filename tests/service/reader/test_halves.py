"""Halves: what they come to is what the whole comes to, and where the whole is refused they come to nothing."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest

from service.codecs.tensors.document import MAX_VALUES, parse
from service.codecs.tensors.members import Members, read_members
from service.codecs.tensors.nested import NeedsWalk
from service.errors import ServiceError
from service.reader.halves import joined, part, read_halves
from tests.service.reader.processes import assert_alike, run, started, taken, until

MAX_ELEMENTS = 5000
NAMES = frozenset({"mask", "boxes", "query"})

ODD_STRINGS = ["]],[[", '"tensor":[[1],[2]]', "\\", 'a"b', "],[1", "}", "é→", '"dtype":"float64"']


def whole(body: bytes) -> Members | None:
    """What is read without halves; None where the body is refused."""
    try:
        return read_members(parse(body, max_elements=MAX_ELEMENTS), NAMES)
    except ServiceError:
        return None


def by_halves(body: bytes) -> Members | None:
    """What both halves come to, read here."""
    halves = part(body)
    if halves is None:
        return None
    first, rest = whole(halves.first), whole(b"%b%b" % (halves.opening, bytes(halves.rest)))
    return joined(first, rest, halves, max_elements=MAX_ELEMENTS) if first and rest else None


def random_request(rng: np.random.Generator) -> bytes:
    """Tensors of all ranks, in any company and any layout of the text."""
    shape = tuple(rng.integers(1, 9, rng.integers(1, 5)))
    if rng.random() < 0.4:
        shape = (1, *shape)
    dtype = str(rng.choice(["float32", "float64", "uint8", "int64", "float16"]))
    values = rng.integers(0, 200, shape) if dtype in {"uint8", "int64"} else rng.normal(size=shape)
    members: list[tuple[str, object]] = [("tensor", values.astype(dtype).tolist())]
    if rng.random() < 0.6:
        members.append(("dtype", dtype))
    others: list[tuple[str, object]] = [
        ("op", "max"),
        ("kernel", [2, 2]),
        (str(rng.choice(ODD_STRINGS)), str(rng.choice(ODD_STRINGS))),
        ("mask", rng.integers(0, 2, (3, 3)).tolist()),
        ("ops", [{"op": "max", "query": [1, 2]}, {"op": "avg", "tensor": 3}]),
        ("x", {"tensor": [[1, 2], [3, 4]], "dtype": "float64"}),
        ("boxes", {"shape": [1, 4], "data": [0, 1, 2, 3]}),
    ]
    members += [other for other in others if rng.random() < 0.25]
    rng.shuffle(members)  # type: ignore[arg-type]
    separators = [(",", ":"), (", ", ": "), (" ,\n", " :\t")][rng.integers(3)]
    return json.dumps(dict(members), separators=separators, indent=[None, None, 1][rng.integers(3)]).encode()


def mutated(body: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes taken out, put in or doubled: of what JSON is made of, in the middle more than elsewhere."""
    for _ in range(rng.integers(1, 4)):
        at = int(np.clip(rng.normal(0.5, 0.2), 0, 1) * len(body))
        size = int(rng.integers(1, 4))
        piece = [b"", b"", *(bytes([code]) for code in b'[],:{}"1\\'), body[at : at + 8]][rng.integers(12)]
        body = body[:at] + piece + body[at + (size if rng.random() < 0.7 else 0) :]
    return body


def test_halves_come_to_the_whole(rng: np.random.Generator) -> None:
    joined_well = 0
    for _ in range(3000):
        body = random_request(rng)
        expected = whole(body)
        assert expected is not None
        got = by_halves(body)
        if got is not None:
            assert_alike(got, expected)
            joined_well += 1
    assert joined_well > 600


def test_what_is_refused_as_a_whole_is_never_put_together(rng: np.random.Generator) -> None:
    refused = joined_well = 0
    for _ in range(10_000):
        body = mutated(random_request(rng), rng)
        expected, got = whole(body), by_halves(body)
        refused += expected is None
        if got is not None:
            assert expected is not None, body
            assert_alike(got, expected)
            joined_well += 1
    assert refused > 3000
    assert joined_well > 100


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ((64, 3, 4, 4), (31, 3, 4, 4)),
        ((1, 8, 5, 5), (1, 4, 5, 5)),
        ((2, 300), (1, 300)),
        ((100,), (48,)),
        ((1, 100), (1, 48)),
    ],
)
def test_each_has_about_half(shape: tuple[int, ...], first: tuple[int, ...]) -> None:
    halves = part(json.dumps({"op": "max", "tensor": np.zeros(shape).tolist()}).encode())
    assert halves is not None
    read = whole(halves.first)
    assert read is not None
    assert np.abs(np.subtract(read.tensor.shape, first)).max() <= 1 + max(shape) // 20


@pytest.mark.parametrize(
    "body",
    [
        b'{"tensor":[[1,2],[3,4]],"tensor":[[5,6],[7,8]]}',
        b'{"op":"max","tensor":[[1,2],[3,4]],"op":"avg","a":"12345678"}',
        b'{"dtype":"uint8","tensor":[[1,2,3],[4,5,6]],"dtype":"uint8"}',
        b'{"tensor":[[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7]]}',
        b'{"tensor":[[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7,8],]}',
        b'{"tensor":[[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7,8]]}}',
        b'{"tensor":[[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7,8]],"ops":[],"x":1}',
        b'{"x":[[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7,8]],"y":"\\"tensor\\":[["}',
        b'{"y":"\\"tensor\\":[[","x":[[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7,8]]}',
        b'{"kernel":[2,2],"tensor":[[,190,85,6,67,90]]}',
        b'[{"tensor":[[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7,8]]}]',
    ],
)
def test_what_only_looks_sound_is_not(body: bytes) -> None:
    assert whole(body) is None
    assert by_halves(body) is None


def test_limits_hold_for_both_together() -> None:
    half = [0.5] * (MAX_ELEMENTS // 2)
    for tensor, fits in (([half, half], True), ([half, half, half], False), ([[*half, 1], [*half, 1]], False)):
        body = json.dumps({"tensor": tensor}).encode()
        assert (whole(body) is not None) == (by_halves(body) is not None) == fits
    before, behind = ({f"{side}{i}": i for i in range(130)} for side in "ab")
    body = json.dumps({**before, "tensor": [half, half], **behind}).encode()
    assert whole(body) is by_halves(body) is None
    for behind_it, fits in ((MAX_VALUES - 1500, True), (MAX_VALUES - 1499, False)):
        # The last of `b` is a list: it counts, and what is in it.
        document = {"a": [1] * 1500, "tensor": [[0.123456] * 100] * 50, "b": [*[1] * (behind_it - 2), [7]]}
        body = json.dumps(document, separators=(",", ":")).encode()
        assert part(body) is not None
        assert (whole(body) is not None) == (by_halves(body) is not None) == fits


def test_two_processes_read_one_request(rng: np.random.Generator) -> None:
    async def course() -> None:
        async with started(max_elements=10**6, names=NAMES) as reader:
            tensor = rng.normal(size=(64, 3, 32, 32))
            body = json.dumps({"op": "max", "dtype": "float64", "tensor": tensor.tolist(), "kernel": 2}).encode()
            broken = body.replace(b"]]],", b"]],", 1)
            early, late = (
                json.dumps({"tensor": [row, row[::-1]]}).encode()
                for row in (["NaN", *[1.5] * 1000], [*[1.5] * 1000, "NaN"])
            )
            nowhere = json.dumps({"op": "max", "tensor": {"shape": [4], "data": [1, 2, 3, 4]}}).encode()
            for text in (body, memoryview(body)):
                got = await read_halves(text, reader, taken(reader))
                assert got is not None
                assert got.tensor.dtype == np.float64
                assert (got.tensor == tensor).all()
                assert got.parameters == {"op": "max", "kernel": 2}
            for text in (broken, nowhere):
                await until(lambda: reader._free)  # the process may be at its half of the one before
                assert await read_halves(text, reader, taken(reader)) is None
            for text in (early, late):
                await until(lambda: reader._free)
                with pytest.raises(NeedsWalk):
                    await read_halves(text, reader, taken(reader))
            assert reader.pid is not None
            await until(lambda: reader._free)
            os.kill(reader.pid, signal.SIGKILL)
            assert await read_halves(body, reader, taken(reader)) is None

    run(course())
