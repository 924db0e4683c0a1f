"""What stands around a tensor is known by its bytes: reading by a template is reading by `read_request`, or nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from service.api.templates import Templates
from service.api.tensors import Asked, read_request
from service.errors import InvalidTensor, PayloadTooLarge
from service.settings import Settings

SETTINGS = Settings()


def templates() -> Templates:
    return Templates(max_elements=SETTINGS.max_tensor_elements)


def read(body: bytes) -> Asked:
    return read_request("json", body, "application/json", {}, SETTINGS)


def taught(body: bytes) -> Templates:
    known = templates()
    known.learn(body, read(body))
    return known


def same(one: Asked | None, other: Asked) -> bool:
    return (
        one is not None
        and one.tensor.dtype == other.tensor.dtype
        and np.array_equal(one.tensor, other.tensor, equal_nan=True)
        and [(job.op, job.parameters, dict(job.arrays)) for job in one.jobs]
        == [(job.op, job.parameters, dict(job.arrays)) for job in other.jobs]
        and (one.form, one.many, one.compare) == (other.form, other.many, other.compare)
    )


@pytest.mark.parametrize(
    "members",
    [
        '{"op": "max", "kernel": 2, "tensor": %s}',
        '{"tensor": %s, "op": "max", "kernel": 2}',
        '{"kernel":[2,1],"tensor":%s,"op":"avg","dtype":"float64"}',
        ' {"op":"topk","k":2,"dtype":"uint8","tensor" : %s } ',
        '{"op":"max","x":"\\"tensor\\":[1]","tensor":%s}',
    ],
)
def test_other_numbers_of_any_shape_read_as_without_a_template(members: str, rng: np.random.Generator) -> None:
    known = taught((members % "[[1,2],[3,4]]").encode())
    for shape in ((1,), (3,), (2, 5), (2, 1, 4), (0,), (2, 0)):
        body = (members % json.dumps(rng.integers(0, 100, shape).tolist())).encode()
        assert same(known.read(body), read(body)), shape


def test_strings_for_what_is_not_finite_are_read() -> None:
    known = taught(b'{"op":"max","tensor":[1]}')
    body = b'{"op":"max","tensor":["NaN",-1e3,"Infinity"]}'
    assert same(known.read(body), read(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"op":"max","kernel":3,"tensor":[[1,2],[3,4]]}',  # another parameter
        b'{"op":"max","kernel":2,"tensor":[[1,2],[3,4]],"stride":1}',
        b'{"op":"max","kernel":2,"tensor":[[1,2],[3,4]]',  # not closed
        b'{"op":"max","kernel":2,"tensor":[[1,2],[3,4]}',
        b'{"op":"max","kernel":2,"tensor":[[1,2],[3,4]],"tensor":[1]}',  # twice, which reads as one text between the two ends
        b'{"op":"max","kernel":2,"tensor":[1],[2]}',
        b'{"op":"max","kernel":2,"tensor":7}',
        b"[1]",
        b"\xff\xfe",
    ],
)
def test_what_is_not_known_is_left_to_the_whole_reading(body: bytes) -> None:
    assert taught(b'{"op":"max","kernel":2,"tensor":[[5,2],[7,1]]}').read(body) is None


@pytest.mark.parametrize("numbers", [b"[[1,2],[3]]", b'[1,"x"]', b"[1e300]", b"[[1,[2]]]", b"[true]", b"[null]"])
def test_wrong_numbers_are_refused_in_the_same_words(numbers: bytes) -> None:
    body = b'{"op":"max","tensor":%b}' % numbers
    with pytest.raises(InvalidTensor) as whole:
        read(body)
    with pytest.raises(InvalidTensor) as known:
        taught(b'{"op":"max","tensor":[1]}').read(body)
    assert str(known.value) == str(whole.value)


def test_too_many_numbers_are_refused() -> None:
    known = Templates(max_elements=3)
    body = b'{"op":"max","tensor":[1,2,3]}'
    known.learn(body, read(body))
    with pytest.raises(PayloadTooLarge):
        known.read(b'{"op":"max","tensor":[1,2,3,4]}')


@pytest.mark.parametrize(
    "body",
    [
        b'{"tensor":{"shape":[2],"data":[1,2]},"op":"max"}',
        b'{"ops":[{"op":"max"}],"tensor":[1,2]}',
        b'{"op":"avg","tensor":[[1,2]],"mask":[[1,0]]}',
        b'{"op":"max","a":{"tensor":[1]},"tensor":[2]}',  # the first `tensor` is another member's
        b'{"op":"max","tensor":5}',
    ],
)
def test_only_one_tensor_among_plain_members_is_learnt(body: bytes) -> None:
    assert taught(body).read(body) is None


def test_only_the_last_templates_are_kept() -> None:
    known = templates()
    bodies = [b'{"op":"max","kernel":%d,"tensor":[1]}' % kernel for kernel in range(1, 300)]
    for body in bodies:
        known.learn(body, read(body))
    assert known.read(bodies[0]) is None
    assert known.read(bodies[-1]) is not None
