"""The end of a client's patience: an answer that comes later is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import DeadlineExceeded


@asynccontextmanager
async def answered_by(deadline: float, what: str = "the answer was there") -> AsyncIterator[None]:
    """Cancel what is inside when the time has come.

    Args:
        deadline: on the clock of `time.monotonic`.
        what: should have come to pass; for the message.

    Raises:
        DeadlineExceeded: 504; it was not done by then.
    """
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"the time limit passed before {what}") from None
