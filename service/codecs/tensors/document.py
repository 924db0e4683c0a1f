"""A JSON request body: its parameters as plain Python, its tensors as arrays, made only when they are asked for.

Parsed by simdjson, whose document stays behind proxies: 2.1 MB of numbers become an array without one Python float.
Nothing about operators belongs here; which members are tensors the caller says.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import numpy as np
from simdjson import Array, Object, Parser

from service.codecs.tensors.base64_text import decode_base64
from service.codecs.tensors.dtypes import DTYPES, DType, Tensor, check_shape, dtype_named, from_bytes, kind_of
from service.codecs.tensors.nested import WIDEST, count_arrays, narrowed, number, read_array
from service.errors import InvalidTensor, Malformed, PayloadTooLarge

Form = Literal["nested", "flat", "base64"]

MAX_MEMBERS = 256
"""Members of one object. simdjson finds a member by walking, so that many of them would cost their square."""

MAX_VALUES = 10_000
"""Values of a document beside its tensors."""

MAX_DEPTH = 32
"""Nesting beside the tensors."""

_BOM = b"\xef\xbb\xbf"
_FLOAT32 = DTYPES["float32"]
_CHUNK = 2**18  # bytes; stays in the second-level cache

# simdjson's error codes in words of our own: its messages may change, and the body is never repeated.
_WORDS = {
    "EMPTY": "nothing in it",
    "TAPE_ERROR": "truncated, or a comma, bracket, quote or value out of place",
    "NUMBER_ERROR": "a number that JSON does not have, beyond ±1.8e308, or an integer beyond 64 bits (write 1e20 for those)",
    "BIGINT_ERROR": "an integer beyond 64 bits (write 1e20 for those)",
    "STRING_ERROR": "a string with a broken escape or half of a surrogate pair",
    "UNESCAPED_CHARS": "a control character within a string",
    "UNCLOSED_STRING": "truncated within a string",
    "DEPTH_ERROR": "more than 1024 levels of nesting",
    "T_ATOM_ERROR": "a value that is none",
    "F_ATOM_ERROR": "a value that is none",
    "N_ATOM_ERROR": "a value that is none",
    "UTF8_ERROR": "not UTF-8",
    "CAPACITY": "more than 4 GiB",
}


class Document:
    """A JSON object whose values are read on demand: a request, or one of the objects within it.

    Attributes:
        names: its members' names, in order; none occurs twice.
        walk: whether tensors may be read by a walk over their elements; else NeedsWalk is raised where it would be.
    """

    __slots__ = ("_body", "_max_elements", "_object", "_where", "names", "walk")

    def __init__(self, found: Object, *, body: bytes | memoryview | None, max_elements: int, where: str = "") -> None:
        """Check the names.

        Args:
            found: simdjson's object.
            body: the whole document's bytes if this object is the outermost, else None.
            max_elements: of each tensor.
            where: path to the object, for messages: `ops[3].`.
        """
        if len(found) > MAX_MEMBERS:
            raise Malformed(f"{where or 'JSON'}: expected at most {MAX_MEMBERS} members in an object, got more")
        self.names = tuple(found)
        if len(set(self.names)) != len(self.names):
            twice = next(name for i, name in enumerate(self.names) if name in self.names[:i])
            raise Malformed(f"expected each member once, {where}{_shown(twice)} is there twice")
        for name in self.names:
            if "\0" in name:  # simdjson looks members up by C strings, which end there
                raise Malformed(f"{where or 'JSON'}: expected names without NUL, got one with it")
        self._object = found
        self._body = body
        self._max_elements = max_elements
        self._where = where
        self.walk = True

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def members(self, tensors: Collection[str] = ()) -> dict[str, object]:
        """Give the members as plain Python: dict, list, str, int, float, bool, None.

        Args:
            tensors: names to leave out, which `tensor` or `parts` will read.

        Raises:
            Malformed (400): nested too deep, or an object within that has a name twice.
            PayloadTooLarge (413): more than MAX_VALUES values.
        """
        left = [MAX_VALUES]
        found: dict[str, object] = {}
        for name in self.names:
            if name not in tensors:
                value: object = self._object[name]
                if isinstance(value, Array | Object):
                    value = self._plain(value, f"{self._where}{_shown(name)}", left, 1)
                found[name] = value
        return found

    def _plain(self, value: object, place: str, left: list[int], depth: int) -> object:
        if not isinstance(value, Array | Object):
            return value
        left[0] -= len(value)  # saturates far beyond MAX_VALUES
        if left[0] < 0:
            raise PayloadTooLarge(f"{place}: expected at most {MAX_VALUES} values beside the tensors, got more")
        if depth > MAX_DEPTH:
            raise Malformed(f"{place}: expected at most {MAX_DEPTH} levels of nesting beside the tensors, got more")
        if isinstance(value, Array):
            return [self._plain(item, f"{place}[{i}]", left, depth + 1) for i, item in enumerate(value)]
        inner = self._inner(value, f"{place}.")
        return {name: self._plain(value[name], f"{place}.{_shown(name)}", left, depth + 1) for name in inner.names}

    def value(self, name: str) -> object:
        """Give a member as simdjson has it: an Array, an Object, or a plain value; None where it is null or not there."""
        found: object = self._object[name] if name in self.names else None
        return found

    def part(self, name: str) -> Document | None:
        """Give an object as a document of its own; None where it is null or not there.

        Raises:
            Malformed (400): something else, or it has a name twice.
        """
        place = f"{self._where}{_shown(name)}"
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, Object):
            raise Malformed(f"{place}: expected an object, got {kind_of(value)}")
        return self._inner(value, f"{place}.")

    def _inner(self, found: Object, where: str) -> Document:
        document = Document(found, body=None, max_elements=self._max_elements, where=where)
        document.walk = self.walk
        return document

    def parts(self, name: str) -> list[Document]:
        """Give a list of objects, such as `ops`, each as a document of its own.

        Raises:
            Malformed (400): not there, or not a list of objects, or one of them has a name twice.
            PayloadTooLarge (413): more than MAX_VALUES of them.
        """
        place = f"{self._where}{_shown(name)}"
        value = self._object[name] if name in self.names else None
        if not isinstance(value, Array):
            raise Malformed(f"{place}: expected an array of objects, got {kind_of(value)}")
        if len(value) > MAX_VALUES:
            raise PayloadTooLarge(f"{place}: expected at most {MAX_VALUES} objects, got more")
        parts = []
        for index, item in enumerate(value):
            if not isinstance(item, Object):
                raise Malformed(f"{place}[{index}]: expected an object, got {kind_of(item)}")
            parts.append(self._inner(item, f"{place}[{index}]."))
        return parts

    def form(self, name: str) -> Form:
        """Say in which of the three forms a tensor came; `nested` where it is something else, which `tensor` refuses."""
        value = self._object[name] if name in self.names else None
        if not isinstance(value, Object):
            return "nested"
        return "base64" if "base64" in value else "flat"

    def tensor(self, name: str, dtype: DType | None = None) -> Tensor:
        """Read a member as an array.

        Taken are a number, nested lists of numbers, {"shape", "dtype", "data"} with a flat list, and {"shape", "dtype",
        "base64"} with little-endian bytes; dtype may be absent there.

        Args:
            name: the member.
            dtype: for numbers whose own object names none. None: what the document's member `dtype` says, else float32.
                bool is for masks.

        Returns:
            One of DTYPES (or bool where asked for), C-contiguous. Read-only where it came as base64.

        Raises:
            InvalidTensor (422): not there; no tensor; ragged; another number of elements than its shape says; numbers that
                the dtype does not have. The message names the place.
            PayloadTooLarge (413): more than max_elements.
        """
        place = f"{self._where}{_shown(name)}"
        if name not in self.names:
            raise InvalidTensor(f"{place}: expected a tensor, got none")
        value = self._object[name]
        if isinstance(value, Object):
            return self._stated(name, value, dtype, place)
        dtype = self._default(dtype)
        if isinstance(value, Array):
            brackets = self._brackets(name)
            return read_array(
                value, dtype, max_elements=self._max_elements, name=place, brackets=brackets, walk=self.walk
            )
        return narrowed(np.array(number(value, dtype, place), WIDEST[dtype.kind]), dtype, place)

    def _default(self, dtype: DType | None) -> DType:
        if dtype is not None:
            return dtype
        return dtype_named(self._object["dtype"]) if "dtype" in self.names else _FLOAT32

    def _stated(self, name: str, value: Object, dtype: DType | None, place: str) -> Tensor:
        """Read an object with shape and either data or base64."""
        stated = self._inner(value, f"{place}.")
        unknown = set(stated.names) - {"shape", "dtype", "data", "base64"}
        if unknown:
            raise InvalidTensor(f"{place}: expected shape, dtype and data or base64, got also {_shown(min(unknown))}")
        if "shape" not in stated or ("data" in stated) == ("base64" in stated):
            raise InvalidTensor(f"{place}: expected shape and one of data and base64, got {', '.join(stated.names)}")
        element = dtype_named(value["dtype"]) if "dtype" in stated else self._default(dtype)
        sizes = value["shape"]
        if not isinstance(sizes, Array):
            raise InvalidTensor(f"{place}.shape: expected an array of integers, got {kind_of(sizes)}")
        shape = check_shape(sizes, max_elements=self._max_elements, itemsize=element.itemsize, name=f"{place}.shape")
        if "base64" in stated:
            text = value["base64"]
            if not isinstance(text, str):
                raise InvalidTensor(f"{place}.base64: expected a string, got {kind_of(text)}")
            expected = math.prod(shape) * element.itemsize
            data = decode_base64(text, expected=expected, name=f"{place}.base64")
            return from_bytes(data, element.newbyteorder("<"), shape)
        numbers = value["data"]
        if not isinstance(numbers, Array):
            raise InvalidTensor(f"{place}.data: expected an array of numbers, got {kind_of(numbers)}")
        brackets = self._brackets(name)
        flat = read_array(
            numbers,
            element,
            max_elements=self._max_elements,
            name=f"{place}.data",
            brackets=None if brackets is None else brackets - 1,  # that of shape
            flat=True,
            walk=self.walk,
        )
        if flat.size != math.prod(shape):
            raise InvalidTensor(f"{place}.data: expected {math.prod(shape)} numbers by its shape, got {flat.size}")
        return flat.reshape(shape)

    def _brackets(self, name: str) -> int | None:
        """Count the document's `[` beside those that its other members need; None where that is not worth while."""
        if self._body is None:
            return None
        if isinstance(self._body, bytes) and len(self._body) < 2 * _CHUNK:
            total = self._body.count(b"[")
        else:
            codes = np.frombuffer(self._body, np.uint8)
            total = sum(
                int(np.count_nonzero(codes[start : start + _CHUNK] == ord("[")))
                for start in range(0, codes.size, _CHUNK)
            )
        return total - sum(count_arrays(self._object[other]) for other in self.names if other != name)


def parse(body: bytes | memoryview, *, max_elements: int) -> Document:
    """Parse a request's JSON body.

    simdjson keeps up to 13 bytes for each byte of the body (measured, of one-digit numbers) while the document lives, and
    reading a tensor of them takes another 4: let it go once all is read.

    Args:
        body: UTF-8, without a byte order mark.
        max_elements: of each tensor that will be read from it.

    Raises:
        Malformed (400): not JSON as RFC 8259 has it, not an object, or an object with a name twice.
    """
    if body[: len(_BOM)] == _BOM:
        raise Malformed("JSON: expected UTF-8 without a byte order mark, got one")
    try:
        # A parser of its own for each body: one cannot be used again while anything of its last document lives, and a
        # new one takes 0.1 µs and gives its memory back.
        found = Parser().parse(body)
    except (ValueError, RuntimeError, TypeError) as error:
        raise parse_error(error) from None
    if not isinstance(found, Object):
        raise Malformed(f"JSON: expected an object, got {kind_of(found)}")
    return Document(found, body=body, max_elements=max_elements)


def parse_error(error: Exception) -> Malformed:
    """Word what simdjson says."""
    text = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
    words = _WORDS.get(text.partition(":")[0], "not JSON")
    return Malformed(f"JSON: expected an object in UTF-8, got {words}")


def _shown(name: str) -> str:
    """A name as messages show it: at most 64 characters, control characters escaped."""
    return name[:64].encode("unicode_escape", "replace").decode("ascii") if not name.isprintable() else name[:64]
