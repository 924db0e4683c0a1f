"""KServe's InferenceRESTClient against a server; test_kserve.py runs it with the interpreter that has it. Prints what it got."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

import httpx  # KServe's
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def answers(url: str, arrays: Any) -> dict[str, Any]:
    pixels, pictures, tensor = arrays["pixels"], [arrays[f"picture{i}"].tobytes() for i in range(3)], arrays["tensor"]
    said: dict[str, Any] = {}

    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:

        async def infer(model: str, given: InferInput, binary: bool, **more: Any) -> dict[str, Any]:
            outputs = None
            if binary:
                names = ["tensor"] if model == "pool" else ["logits", "probabilities"]
                outputs = [RequestedOutput(name, parameters={"binary_data": True}) for name in names]
            request = InferRequest(model, [given], request_outputs=outputs, request_id="an id", **more)
            headers: dict[str, str] = {}
            result = await client.infer(url, request, model_name=model, response_headers=headers)
            assert result.id == "an id"
            assert ("inference-header-content-length" in headers) == binary
            return {output.name: output.as_numpy().tolist() for output in result.outputs}

        said["live"] = await client.is_server_live(url)
        said["ready"] = await client.is_server_ready(url)
        said["model ready"] = await client.is_model_ready(url, "colour")
        said["nobody ready"] = await client.is_model_ready(url, "nobody")
        for binary in (True, False):
            form = "bytes" if binary else "JSON"
            given = InferInput("images", list(pixels.shape), "UINT8")
            given.set_data_from_numpy(pixels, binary_data=binary)
            said[f"pixels as {form}"] = await infer("colour", given, binary)
            given = InferInput("tensor", list(tensor.shape), "FP32")
            given.set_data_from_numpy(tensor, binary_data=binary)
            said[f"tensor as {form}"] = await infer("pool", given, binary, parameters={"op": "max", "kernel": 2})
        given = InferInput("image_bytes", [3], "BYTES")
        given.set_data_from_numpy(np.array(pictures, object), binary_data=True)
        said["pictures as bytes"] = await infer("colour", given, True)
        texts = [base64.b64encode(picture).decode() for picture in pictures]
        given = InferInput("image_bytes", [3], "BYTES", data=texts)
        said["pictures as JSON"] = await infer("colour", given, False)
        half = InferInput("tensor", list(tensor.shape), "FP16")
        half.set_data_from_numpy(tensor.astype(np.float16), binary_data=True)
        said["halves as bytes"] = await infer("pool", half, True, parameters={"op": "max", "kernel": 2})
        plain = {
            "inputs": [{"name": "tensor", "shape": [2], "datatype": "INT64", "data": [3, 9]}],
            "parameters": {"op": "max"},
        }
        result = await client.infer(url, plain, model_name="pool")
        said["a dictionary"] = result.outputs[0].as_numpy().tolist()
        try:
            await client.infer(url, {"inputs": []}, model_name="nobody")
        except httpx.HTTPStatusError as error:
            said["error"] = [error.response.status_code, str(error)]
    return said


if __name__ == "__main__":
    with np.load(sys.argv[2]) as loaded:
        print(json.dumps(asyncio.run(answers(sys.argv[1], loaded))))
