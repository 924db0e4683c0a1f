"""What is refused, with words that help; after each refusal the service is well and answers a good request."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.claims import assert_error
from tests.conftest import MakeClient
from tests.service.api.tensors import MATRIX, POOLED, npy, npz

GOOD = {"op": "max", "kernel": 2, "tensor": MATRIX}
NPY = {"content-type": "application/x-npy"}
RAW = {"content-type": "application/octet-stream"}


@pytest.fixture
def asked(make_client: MakeClient) -> Iterator[TestClient]:
    """A client on an app that must be well afterwards."""
    client = make_client()
    yield client
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 200
    response = client.post("/v1/pool", json=GOOD)
    assert (response.status_code, response.json()["tensor"]) == (200, POOLED)
    admission = client.app.state.poolserve.pool_admission  # type: ignore[attr-defined]
    assert (admission.waiting, admission.backlog) == (0, 0)


def refused(client: TestClient, status: int, code: str, *says: str, path: str = "/v1/pool", **request: Any) -> None:
    response = client.post(path, **request)
    assert_error(response, status, code, *says)
    assert len(response.content) < 2000


JSON_BODIES: dict[str, tuple[bytes, int, str, str]] = {
    "nothing": (b"", 400, "malformed", "expected a body"),
    "no JSON": (b"{", 400, "malformed", "JSON"),
    "no object": (b"[1,2]", 400, "malformed", "an array"),
    "not UTF-8": (b'{"op":"max","tensor":[1],"kernel\xff":2}', 400, "malformed", "UTF-8"),
    "a name twice": (b'{"op":"max","op":"min","tensor":[1]}', 400, "malformed", "op"),
    "beyond float64": (b'{"op":"max","tensor":[1,1e400]}', 400, "malformed", "number"),
    "beyond float32": (b'{"op":"max","tensor":[1,1e40]}', 422, "invalid_tensor", "tensor[1]"),
    "NaN as a bare word": (b'{"op":"max","tensor":[1,NaN]}', 400, "malformed", ""),
    "deep": (b'{"op":"max","tensor":' + b"[" * 40 + b"1" + b"]" * 40 + b"}", 422, "invalid_tensor", "32"),
    "very deep": (b'{"op":"max","tensor":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "malformed", "nesting"),
    "ragged": (b'{"op":"max","tensor":[[1,2],[3]]}', 422, "invalid_tensor", "tensor[1]"),
    "a string among numbers": (b'{"op":"max","tensor":[[1,2],[3,"4"]]}', 422, "invalid_tensor", "tensor[1][1]"),
    "null among numbers": (b'{"op":"max","tensor":[1,null]}', 422, "invalid_tensor", "null"),
    "no tensor": (b'{"op":"max"}', 422, "invalid_tensor", "tensor"),
    "tensor is text": (b'{"op":"max","tensor":"1,2"}', 422, "invalid_tensor", "a string"),
    "no op": (b'{"tensor":[[1,2],[3,4]]}', 422, "invalid_parameter", "op: expected"),
    "op is a number": (b'{"op":5,"tensor":[[1,2],[3,4]]}', 422, "invalid_parameter", "op: expected"),
    "op and ops": (b'{"op":"max","ops":[{"op":"max"}],"tensor":[[1]]}', 422, "invalid_parameter", "both"),
    "no ops": (b'{"ops":[],"tensor":[[1]]}', 422, "invalid_parameter", "1 to 64"),
    "ops is an object": (b'{"ops":{"op":"max"},"tensor":[[1]]}', 400, "malformed", "ops"),
    "too many ops": (
        b'{"ops":[' + b",".join([b'{"op":"max"}'] * 65) + b'],"tensor":[[1]]}', 422, "invalid_parameter", "got 65",
    ),
    "a failing member of ops": (b'{"ops":[{"op":"max"},{"op":"mxa"}],"tensor":[[1]]}', 422, "invalid_parameter", "ops[1]: "),
    "a member of ops without op": (b'{"ops":[{"op":"max"},{}],"tensor":[[1]]}', 422, "invalid_parameter", "ops[1]: op"),
    "less data than the shape": (
        b'{"op":"max","tensor":{"shape":[2,3],"data":[1,2,3,4,5]}}', 422, "invalid_tensor", "expected 6",
    ),
    "shape beyond int64": (
        b'{"op":"max","tensor":{"shape":[4294967296,4294967296,4294967296],"data":[]}}', 422, "invalid_tensor", "2^63",
    ),
    "shape beyond the limit": (
        b'{"op":"max","tensor":{"shape":[65536,65536],"data":[]}}', 413, "payload_too_large", "at most",
    ),
    "negative size": (b'{"op":"max","tensor":{"shape":[-1,2],"data":[]}}', 422, "invalid_tensor", "negative"),
    "unknown dtype": (b'{"op":"max","dtype":"float8","tensor":[1]}', 422, "invalid_tensor", "float16"),
    "compare with JSON": (b'{"op":"max","compare":true,"tensor":[[1]]}', 422, "invalid_parameter", "compare"),
    "compare is a number": (b'{"op":"max","compare":7,"tensor":[[1]]}', 422, "invalid_parameter", "compare"),
}  # fmt: skip


@pytest.mark.parametrize("name", JSON_BODIES)
def test_json_that_cannot_be_read(asked: TestClient, name: str) -> None:
    body, status, code, says = JSON_BODIES[name]
    refused(asked, status, code, says, content=body, headers={"content-type": "application/json"})


PARAMETERS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "kernel 10⁹": ({"kernel": 10**9}, "invalid_parameter", ("kernel", "1000000000")),
    "kernel beyond int64": ({"kernel": 10**18}, "invalid_parameter", ("kernel",)),
    "kernel 0": ({"kernel": 0}, "invalid_parameter", ("kernel",)),
    "kernel is a fraction": ({"kernel": 2.5}, "invalid_parameter", ("kernel",)),
    "kernel of three axes": ({"kernel": [2, 2, 2]}, "invalid_parameter", ("kernel",)),
    "stride 0": ({"kernel": 2, "stride": 0}, "invalid_parameter", ("stride",)),
    "padding over half the kernel": ({"kernel": 2, "padding": 2}, "invalid_parameter", ("padding", "half")),
    "padding of no known name": ({"kernel": 2, "padding": "some"}, "invalid_parameter", ("padding",)),
    "boxes outside": ({"boxes": [[0, 0, 99, 99]]}, "invalid_parameter", ("box 0", "99")),
    "boxes of three numbers": ({"boxes": [[0, 0, 1]]}, "invalid_parameter", ("boxes",)),
    "more labels than segments": ({"labels": [[0, 1, 2, 3]] * 4, "segments": 2}, "invalid_parameter", ("labels",)),
    "too many labels": ({"labels": [[2**40, 0, 0, 0]] * 4}, "invalid_parameter", ("labels",)),
    "labels of another shape": ({"labels": [[0, 1]]}, "invalid_tensor", ("labels",)),
    "labels are fractions": ({"labels": [[0.5, 1, 0, 0]] * 4}, "invalid_tensor", ("labels[0]",)),
    "mask of another shape": ({"mask": [[True]]}, "invalid_tensor", ("mask",)),
    "unknown parameter": ({"kernal": 2}, "invalid_parameter", ("unknown parameter 'kernal'",)),
    "another operator's parameter": ({"kernel": 2, "sigma": 1.0}, "invalid_parameter", ("'sigma'", "'max'")),
    "output_size of lists": ({"output_size": [[1, 2], [3, 4]]}, "invalid_parameter", ("output_size",)),
    "output_size beyond the limit": ({"output_size": 10**6}, "invalid_parameter", ("expected at most",)),
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_that_cannot_be(asked: TestClient, name: str) -> None:
    parameters, code, says = PARAMETERS[name]
    refused(asked, 422, code, *says, json={"op": "max", "tensor": MATRIX, **parameters})


def test_unknown_operator_is_told_the_nearest(asked: TestClient) -> None:
    refused(asked, 422, "invalid_parameter", "op: ", "nearest", "max", json={**GOOD, "op": "maxx"})


QUERIES: dict[str, tuple[str, bytes, dict[str, str], int, str, str]] = {
    "parameter twice": ("op=max&op=min", npy(np.zeros((2, 2))), NPY, 422, "invalid_parameter", "'op' is given twice"),
    "unknown": ("op=max&colour=red", npy(np.zeros((2, 2))), NPY, 422, "invalid_parameter", "'colour'"),
    "shape of a .npy": ("op=max&shape=2,2", npy(np.zeros((2, 2))), NPY, 422, "invalid_parameter", "'shape'"),
    "too many": ("&".join(f"a{i}=1" for i in range(100)), npy(np.zeros(2)), NPY, 400, "malformed", "64"),
    "ops": ("ops=max,min", npy(np.zeros((2, 2))), NPY, 422, "invalid_parameter", "ops"),
    "mask is no JSON": ("op=max&mask=1]", npy(np.zeros((2, 2))), NPY, 400, "malformed", ""),
    "mask smuggles": ('op=max&mask=1,"x":2', npy(np.zeros((2, 2))), NPY, 422, "invalid_tensor", "mask"),
    "raw, no dtype": ("op=max&shape=2,2", b"\0" * 16, RAW, 422, "invalid_parameter", "dtype"),
    "raw, no shape": ("op=max&dtype=float32", b"\0" * 16, RAW, 422, "invalid_parameter", "shape"),
    "raw, short": ("op=max&dtype=float32&shape=2,2", b"\0" * 15, RAW, 422, "invalid_tensor", "expected 16 bytes"),
    "raw, overflow": (f"op=max&dtype=int8&shape={2**62},4", b"\0", RAW, 422, "invalid_tensor", "2^63"),
    "raw, words": ("op=max&dtype=int8&shape=a,b", b"\0", RAW, 422, "invalid_tensor", "shape"),
    "raw, neither": ("op=max", b"\0" * 16, RAW, 415, "unsupported_media_type", ""),
    "text": ("op=max", b"1,2", {"content-type": "text/csv"}, 415, "unsupported_media_type", "application/x-npy"),
    "broken .npy": ("op=max", npy(np.zeros((2, 2)))[:-1], NPY, 422, "invalid_tensor", "expected 32 bytes"),
    "broken .npz": ("op=max", npz(tensor=np.zeros((2, 2)))[:-9], {}, 400, "malformed", ".npz"),
    ".npz of two": ("op=max", npz(a=np.zeros((2, 2)), b=np.zeros(2)), {}, 422, "invalid_tensor", "named tensor"),
    "broken picture": ("op=max", b"\x89PNG\r\n\x1a\n\0\0", {}, 422, "invalid_image", "PNG"),
}  # fmt: skip


@pytest.mark.parametrize("name", QUERIES)
def test_bodies_and_queries_that_do_not_fit(asked: TestClient, name: str) -> None:
    query, content, headers, status, code, says = QUERIES[name]
    refused(asked, status, code, says, path=f"/v1/pool?{query}", content=content, headers=headers)


FORMS: dict[str, tuple[str, bytes, int, str, str]] = {
    "no boundary": ("multipart/form-data", b"--x\r\n", 400, "malformed", "boundary"),
    "another boundary": ("multipart/form-data; boundary=x", b"--y\r\n\r\n", 400, "malformed", "boundary"),
    "truncated": (
        "multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="op"\r\n\r\nmax', 400, "malformed",
        "truncated",
    ),
    "no name": ("multipart/form-data; boundary=x", b"--x\r\nA: b\r\n\r\nmax\r\n--x--", 400, "malformed", "a name in part 0"),
    "no parts": ("multipart/form-data; boundary=x", b"--x--\r\n", 422, "invalid_tensor", "named tensor"),
    "endless headers": ("multipart/form-data; boundary=x", b"--x\r\n" + b"A" * 9000, 400, "malformed", "headers"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_cannot_be_read(asked: TestClient, name: str) -> None:
    content_type, content, status, code, says = FORMS[name]
    refused(asked, status, code, says, content=content, headers={"content-type": content_type})


def test_accept_that_no_form_meets(asked: TestClient) -> None:
    refused(asked, 406, "not_acceptable", "application/x-npy", json=GOOD, headers={"accept": "text/html"})


def test_picture_of_what_is_none(asked: TestClient) -> None:
    request = {"op": "max", "kernel": 2, "tensor": np.zeros((2, 2, 2, 4, 4)).tolist()}
    refused(asked, 422, "invalid_tensor", "a picture", json=request, headers={"accept": "image/png"})


def test_gradient_of_another_shape(asked: TestClient) -> None:
    request = {**GOOD, "grad_output": [[1, 2, 3]]}
    refused(asked, 422, "invalid_tensor", "grad_output", path="/v1/pool/gradient", json=request)


def test_unpool_without_and_with_wrong_indices(asked: TestClient) -> None:
    request = {"op": "max", "tensor": [[5, 7], [8, 9]], "output_size": [4, 4]}
    refused(asked, 422, "invalid_parameter", "indices", path="/v1/unpool", json=request)
    for indices in ([[4, 6], [9, 16]], [[4, 6], [9, -1]]):
        refused(asked, 422, "invalid_tensor", "indices", path="/v1/unpool", json={**request, "indices": indices})


def test_npz_that_inflates_beyond_the_limit(make_client: MakeClient) -> None:
    client = make_client(max_tensor_elements=1000)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, tensor=np.zeros(10**6))
    refused(client, 413, "payload_too_large", "expected at most", path="/v1/pool?op=max", content=buffer.getvalue())


def test_picture_by_its_header_beyond_the_limits(make_client: MakeClient) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    refused(make_client(), 413, "payload_too_large", "60000x60000", path="/v1/pool?op=max", content=bomb)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "PNG")
    client = make_client(max_tensor_elements=3599)
    refused(client, 413, "payload_too_large", "3600", path="/v1/pool?op=max", content=buffer.getvalue())


def test_answer_larger_than_the_limit(make_client: MakeClient) -> None:
    request = {"op": "max", "output_size": 10, "tensor": np.zeros((2, 4, 4)).tolist()}
    refused(make_client(max_tensor_elements=199), 422, "invalid_parameter", "at most 99 regions", "100", json=request)
    assert make_client(max_tensor_elements=200).post("/v1/pool", json=request).status_code == 200


def test_operators_are_bounded_together(make_client: MakeClient) -> None:
    """Each of them is within the limits, of memory and of time."""
    many = {"ops": [{"op": "max"}] * 20, "output_size": 10, "tensor": np.zeros((2, 4, 4)).tolist()}
    client = make_client(max_tensor_elements=3999)
    refused(client, 413, "payload_too_large", "3999 numbers in all answers together", "4000", json=many)
    assert make_client(max_tensor_elements=4000).post("/v1/pool", json=many).status_code == 200
    whole = {"ops": [{"op": "median"}] * 20, "tensor": np.zeros((2, 4, 4)).tolist()}
    client = make_client(max_pool_cells=639)
    refused(client, 413, "payload_too_large", "639 cells in all together", "640", json=whole)
    assert make_client(max_pool_cells=640).post("/v1/pool", json=whole).status_code == 200


@pytest.mark.parametrize(
    ("path", "op", "name"),
    [
        ("/v1/unpool", "nearest", "mask"),
        ("/v1/unpool", "avg", "grad_output"),
        ("/v1/unpool", "avg", "centres"),
        ("/v1/pool", "max", "indices"),
        ("/v1/pool", "max", "grad_output"),
        ("/v1/pool/gradient", "max", "indices"),
    ],
)
def test_arrays_that_another_endpoint_takes(asked: TestClient, path: str, op: str, name: str) -> None:
    request = {"op": op, "tensor": [[1, 2], [3, 4]], name: [[0, 1], [1, 0]]}
    refused(asked, 422, "invalid_parameter", f"{name}: expected no such array here", path=path, json=request)


@pytest.mark.parametrize(
    "path", ["/v1/pool?op=max&kernel=1", "/v1/pool/gradient?op=max&kernel=1", "/v1/unpool?op=avg&kernel=1"]
)
@pytest.mark.parametrize("accept", ["application/json", "application/octet-stream", "application/x-npy"])
def test_booleans_are_for_masks(asked: TestClient, path: str, accept: str) -> None:
    headers = {"Content-Type": "application/x-npy", "Accept": accept}
    body = npy(np.eye(4, dtype=bool))
    refused(asked, 422, "invalid_tensor", "expected numbers, got bool", path=path, content=body, headers=headers)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("op", ["sum", "max", "min", "range"])
def test_one_whole_number_is_an_answer(asked: TestClient, op: str, dtype: str) -> None:
    given = {"op": op, "tensor": [[1, 2], [5, 4]], "dtype": dtype}
    expected = {"sum": 12, "max": 5, "min": 1, "range": 4}[op]
    response = asked.post("/v1/pool", json=given)
    assert (response.status_code, response.json()["tensor"]) == (200, expected)
