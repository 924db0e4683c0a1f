"""Max pooling as tutorials write it, kept for comparison: FastAPI, a pydantic model of nested lists, NumPy, `.tolist()`.

Beside it an empty Starlette route: what the framework costs when there is nothing to do.
"""

from __future__ import annotations

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class PoolRequest(BaseModel):
    """(N,C,H,W) and a square window."""

    tensor: list[list[list[list[float]]]]
    kernel: int = 2


class PoolResponse(BaseModel):
    """(N,C,H/kernel,W/kernel)."""

    tensor: list[list[list[list[float]]]]


app = FastAPI()


@app.get("/health/ready")
async def ready() -> dict[str, str]:
    """Say that the server is up."""
    return {"status": "ready"}


@app.post("/pool")
async def pool(request: PoolRequest) -> PoolResponse:
    """Pool windows that touch each other; what is left over at the edges falls away."""
    x = np.array(request.tensor, np.float32)  # (N,C,H,W)
    n, c, height, width = x.shape
    k = request.kernel
    y = x[:, :, : height // k * k, : width // k * k].reshape(n, c, height // k, k, width // k, k).max((3, 5))
    return PoolResponse(tensor=y.tolist())


async def nothing(request: Request) -> Response:
    """Answer without looking."""
    return Response()


empty = Starlette(routes=[Route("/{path:path}", nothing, methods=["GET", "POST"])])
