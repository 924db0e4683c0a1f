from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from service.codecs.tensors.document import parse
from service.codecs.tensors.dtypes import DTYPES
from service.codecs.tensors.json_text import tensor_member, write_array, write_json


def decoded(text: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def some(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Any bits at all: for floats with NaN, infinities, subnormals and -0."""
    dtype = DTYPES[name]
    count = math.prod(shape) * dtype.itemsize
    return np.frombuffer(rng.bytes(count), dtype, math.prod(shape)).reshape(shape) if count else np.zeros(shape, dtype)


@pytest.mark.parametrize("form", ["nested", "flat", "base64"])
@pytest.mark.parametrize("name", DTYPES)
def test_what_is_written_reads_back_to_the_same_bits(name: str, form: Any, rng: np.random.Generator) -> None:
    for shape in ((), (1,), (5000,), (2, 3, 4), (1,) * 32):
        array = some(name, shape, rng)
        text = write_json({"op": "max", "tensor": tensor_member(array, form), "dtype": name})
        got = parse(text, max_elements=10**6).tensor("tensor")
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)
        if array.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(array[~np.isnan(array)]))


def test_every_float16_reads_back() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    text = write_json({"tensor": every, "dtype": "float16"})
    np.testing.assert_array_equal(parse(text, max_elements=2**16).tensor("tensor"), every)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_decimals_are_the_shortest(name: str, rng: np.random.Generator) -> None:
    """Oracle: NumPy's Dragon4 in its unique mode."""
    array = some(name, (2000,), rng)
    array = array[np.isfinite(array)]
    written = write_json({"tensor": array})[len(b'{"tensor":[') : -2].decode().split(",")
    for text, value in zip(written, array, strict=True):
        digits = text.lstrip("-").partition("e")[0].replace(".", "").strip("0")
        shortest = np.format_float_scientific(value, unique=True, trim="-").lstrip("-").partition("e")[0]
        if name == "float16" and float(value).is_integer():
            assert float(text) == float(value)
        else:
            assert len(digits) == len(shortest.replace(".", "").strip("0")), (text, value)


def test_the_textbook_answer() -> None:
    array = np.array([[5, 7], [8, 9]], np.float32)
    members = {"op": "max", "shape": [2, 2], "dtype": "float32", "tensor": array}
    assert write_json(members) == b'{"op":"max","shape":[2,2],"dtype":"float32","tensor":[[5.0,7.0],[8.0,9.0]]}'
    assert write_json({"t": np.float16([0.1, 65504, 2049])}) == b'{"t":[0.1,65504.0,2048.0]}'


@pytest.mark.parametrize("code", "?bBhHiIlLqQefd")
def test_one_number_is_written_whatever_c_calls_its_type(code: str) -> None:
    """NumPy's sum of int32 is a long long, which orjson refuses as a scalar, though it is as long as a long."""
    array = np.array(1, code)
    assert json.loads(write_array(array)) == json.loads(write_json({"t": array}))["t"] == 1


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_non_finite_numbers_are_strings(name: str) -> None:
    array = np.array([[math.nan, 1], [math.inf, -math.inf], [0.5, math.nan]], name)
    text = write_json({"null": None, "t": array, "scalar": array[0, 0], "rank_0": np.array(-math.inf, name)})
    nan = [["NaN", 1.0], ["Infinity", "-Infinity"], [0.5, "NaN"]]
    assert decoded(text) == {"null": None, "t": nan, "scalar": "NaN", "rank_0": "-Infinity"}
    assert decoded(write_json({"t": np.full(3, math.nan, name), "p": math.inf})) == {"t": ["NaN"] * 3, "p": "Infinity"}


@pytest.mark.parametrize("shape", [(0,), (0, 3, 2, 2), (2, 0), (2, 0, 3), (3, 2, 0), (1, 0)])
@pytest.mark.parametrize("name", ["float16", "float32", "int8"])
def test_empty_arrays_are_numpys_lists(shape: tuple[int, ...], name: str) -> None:
    array = np.zeros(shape, name)
    assert decoded(write_json({"t": array})) == {"t": array.tolist()}
    assert decoded(write_json({"t": tensor_member(array, "flat")}))["t"] == {
        "shape": list(shape), "dtype": name, "data": []
    }  # fmt: skip


def test_arrays_of_any_layout_are_written(rng: np.random.Generator) -> None:
    for name in DTYPES:
        array = np.nan_to_num(some(name, (4, 6, 5), rng), posinf=1, neginf=2)
        layouts = [
            array.T, array[::2, ::-1, 1:], np.asfortranarray(array), np.broadcast_to(array[:1], array.shape),
            array.astype(array.dtype.newbyteorder(">")), array[..., 0], array[1, 2, 3:4],
        ]  # fmt: skip
        for layout in layouts:
            members = {form: tensor_member(layout, form) for form in ("nested", "flat", "base64")}
            found = parse(write_json({**members, "dtype": name}), max_elements=1000)
            for form in members:
                np.testing.assert_array_equal(found.tensor(form), layout)


def test_base64_is_of_the_little_endian_bytes(rng: np.random.Generator) -> None:
    array = rng.standard_normal((3, 4)).astype(">f4")
    text = decoded(write_json({"t": tensor_member(array, "base64")}))["t"]
    assert text["dtype"] == "float32"
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text["base64"]), "<f4").reshape(3, 4), array)


def test_arrays_may_stand_anywhere(rng: np.random.Generator) -> None:
    array = rng.integers(9, size=(2, 2))
    results = [{"op": "max", "tensor": array}, {"op": "min", "tensor": (array, array > 4)}]
    expected = [
        {"op": "max", "tensor": array.tolist()}, {"op": "min", "tensor": [array.tolist(), (array > 4).tolist()]}
    ]  # fmt: skip
    assert decoded(write_json({"results": results})) == {"results": expected}
