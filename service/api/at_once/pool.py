"""/v1/pool at once: small JSON tensors whose members and shape were seen before."""

from __future__ import annotations

from starlette.types import Scope

from service.api.at_once.reply import Reply, reply
from service.api.repeats import Repeats
from service.api.timing import Timing
from service.runtime.admission import Admission

_JSON = b"application/json"
_ALLOWED: dict[bytes, frozenset[bytes]] = {
    b"content-type": frozenset({_JSON}),
    b"accept": frozenset({_JSON, b"*/*"}),
    b"content-encoding": frozenset(),
    b"x-request-timeout": frozenset(),
}
"""Of the headers that matter, the values that change nothing: JSON comes, and JSON will do."""


class PoolAtOnce:
    """The road of /v1/pool."""

    def __init__(self, repeats: Repeats, *, crowd: Admission) -> None:
        """Begin.

        Args:
            repeats: what is known of requests.
            crowd: the queue of tensors: while anybody waits there, it is said further in who is refused.
        """
        self._repeats = repeats
        self._crowd = crowd

    def answer(self, scope: Scope, body: bytes) -> Reply | None:
        """Pool."""
        headers = scope["headers"]
        if scope["query_string"] or self._crowd.waiting or not _is_plain(headers):
            return None
        timing = Timing()
        content = self._repeats.answer(body, timing)
        return None if content is None else reply(headers, _JSON, timing.header()[1], content)


def _is_plain(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the headers say that JSON comes, and nothing else that matters."""
    json = False
    for name, value in headers:  # lower case, as ASGI has them
        allowed = _ALLOWED.get(name)
        if allowed is not None:
            if value not in allowed:
                return False
            json = json or name == b"content-type"
    return json
