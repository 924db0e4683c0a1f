"""Slots: what goes in comes out, whatever its type and shape, and the largest that can be asked fits."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from service.codecs.tensors.document import parse
from service.codecs.tensors.dtypes import BOOL, DTYPES
from service.codecs.tensors.members import Members, Op, read_members
from service.errors import InvalidTensor
from service.reader import slots

SHAPES = [(), (1,), (0,), (0, 3), (2, 0), (7, 5, 3), (1, 1, 1, 1), (64, 3, 32, 32)]


@pytest.fixture
def pair() -> Iterator[tuple[list[slots.Slot], list[slots.Slot]]]:
    """The slots as both processes map them."""
    with slots.created() as memory:
        yield slots.attach(memory), slots.attach(memory)


@pytest.mark.parametrize("dtype", [*DTYPES.values(), BOOL], ids=str)
def test_arrays_come_out_as_they_went_in(
    pair: tuple[list[slots.Slot], list[slots.Slot]], dtype: np.dtype, rng: np.random.Generator
) -> None:
    here, there = pair
    arrays = {str(shape): rng.integers(0, 2, shape).astype(dtype) for shape in SHAPES}
    members = Members(
        ("a", "b"), arrays["(7, 5, 3)"], "flat", {"op": "max", "π": [None, 1.5]}, arrays, [Op({"k": 1}, arrays)]
    )
    there[0].put_result(members)
    there[1].put_result("the other one")
    got = here[0].result()
    assert isinstance(got, Members)
    assert (got.form, got.parameters, here[1].result()) == ("flat", members.parameters, "the other one")
    assert got.ops is not None
    for found in (got.arrays, got.ops[0].arrays):
        for name, array in arrays.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert found[name].tobytes() == array.tobytes()


def test_what_was_taken_out_is_of_its_own(pair: tuple[list[slots.Slot], list[slots.Slot]]) -> None:
    here, there = pair
    there[0].put_result(np.arange(5))
    first = here[0].result()
    there[0].put_result(np.full(5, -1))
    assert isinstance(first, np.ndarray)
    assert first.tolist() == [0, 1, 2, 3, 4]


def test_errors_come_out_as_they_went_in(pair: tuple[list[slots.Slot], list[slots.Slot]]) -> None:
    here, there = pair
    there[0].put_result(InvalidTensor("tensor[3]: expected a number"))
    error = here[0].result()
    assert isinstance(error, InvalidTensor)
    assert (error.message, error.status) == ("tensor[3]: expected a number", 422)


@pytest.mark.parametrize(("dtype", "number"), [("float64", "1"), ("int64", "7"), ("float32", "1"), ("bool", "1")])
def test_the_largest_body_and_what_is_read_of_it_fit(
    pair: tuple[list[slots.Slot], list[slots.Slot]], dtype: str, number: str
) -> None:
    """Two bytes of a body are eight of a float64; `priors` are read in the tensor's dtype."""
    here, there = pair
    start, middle = (
        (b'{"dtype":"%b","tensor":[' % dtype.encode(), b'],"priors":[')
        if dtype != "bool"
        else (
            b'{"tensor":[1],"mask":[',
            b'],"priors":[',
        )
    )
    count = (slots.MAX_BODY - len(start) - len(middle) - 2) // 4
    numbers = ",".join([number] * count).encode()
    body = b"%b%b%b%b]}" % (start, numbers, middle, numbers)
    assert 0 <= slots.MAX_BODY - len(body) < 8
    here[0].put(body)
    arrived = there[0].body(len(body))
    assert arrived == body
    there[0].put_result(read_members(parse(arrived, max_elements=2**28), {"priors", "mask"}))
    got = here[0].result()
    assert isinstance(got, Members)
    for array in (got.arrays["mask"] if dtype == "bool" else got.tensor, got.arrays["priors"]):
        assert array.shape == (count,)
        assert (array == int(number)).all()


def test_what_a_large_request_took_is_given_back() -> None:
    """Of the slot that is trimmed, and of no other; what is small stays where it is."""
    with slots.created() as descriptor:
        here, there = slots.attach(descriptor), slots.attach(descriptor)

        def held() -> int:
            return os.fstat(descriptor).st_blocks * 512

        large = np.ones(2**20)
        assert held() == 0
        for slot, other in zip(here, there, strict=True):
            slot.put(bytes(2**21))
            other.put_result(large)
        assert 2 * large.nbytes < held() < 2.1 * large.nbytes
        for number, slot in enumerate(here):
            found = slot.result()
            assert isinstance(found, np.ndarray)
            assert found.tobytes() == large.tobytes()
            slot.trim()
            assert held() < large.nbytes * (1.6, 1.1)[number]
        here[0].put(b"small")
        there[0].put_result("small")
        here[0].trim()
        assert here[0].result() == "small"


def test_what_does_not_fit_is_refused(pair: tuple[list[slots.Slot], list[slots.Slot]]) -> None:
    here, _ = pair
    with pytest.raises(ValueError, match="structure"):
        here[0].put_result(np.zeros(2**24))
    here[1].put_result("not touched")
    assert here[1].result() == "not touched"
