"""What the serving process and its reader say to each other: a slot's number, whether to walk, and the bytes of the body in it."""

from __future__ import annotations

import struct

MESSAGE = struct.Struct("<B?Q")

READY = 255
"""In the place of a number: the reader has begun."""
