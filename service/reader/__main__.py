"""The reader's side, which `reader.py` starts: body in, members out, one after the other, until the channel is closed."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Collection

from service.codecs.tensors.document import parse
from service.codecs.tensors.members import read_members
from service.codecs.tensors.nested import NeedsWalk
from service.errors import ServiceError
from service.reader import slots
from service.reader.channel import MESSAGE, READY
from service.runtime import heap

log = logging.getLogger("service.reader")


def read(body: memoryview, *, walk: bool, max_elements: int, names: Collection[str]) -> object:
    """Read a body to Members, or to the ServiceError that answers it, or to NeedsWalk; None where the service itself has failed."""
    try:
        document = parse(body, max_elements=max_elements)
        document.walk = walk
        return read_members(document, names)
    except (ServiceError, NeedsWalk) as error:
        return error
    except Exception:
        log.exception("reading JSON failed")
        return None


def main() -> None:
    """Serve the channel until its other end is closed, which it is when the serving process has ended, however it did."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the other one has requests to finish
    logging.basicConfig(format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s")
    channel = socket.socket(fileno=int(sys.argv[1]))
    memory = slots.attach(int(sys.argv[2]))
    max_elements, names = int(sys.argv[3]), frozenset(sys.argv[4].split(","))
    heap.keep()
    gc.freeze()
    channel.send(MESSAGE.pack(READY, False, 0))
    while message := channel.recv(MESSAGE.size):
        number, walk, length = MESSAGE.unpack(message)
        slot = memory[number]
        slot.put_result(read(slot.body(length), walk=walk, max_elements=max_elements, names=names))
        channel.send(MESSAGE.pack(number, False, 0))


if __name__ == "__main__":
    main()
