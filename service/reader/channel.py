"""What the serving process and its reader say to each other: a slot's number, what to do, and the bytes of the body in the slot."""

from __future__ import annotations

import struct
from enum import IntEnum

MESSAGE = struct.Struct("<BBQ")

READY = 255
"""In the place of a number: the reader has begun."""


class Task(IntEnum):
    """What a body is, and what it is read to."""

    MEMBERS = 0
    """A tensor request, to Members."""

    PLAIN_MEMBERS = 1
    """The same without a walk over elements: NeedsWalk where one is needed."""

    PROTOCOL = 2
    """An inference request of the protocol that is JSON alone, to a Request."""
