"""The reader's side, which `reader.py` starts: body in, what it says out, one after the other, until the channel is closed."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Collection
from contextlib import suppress

from service.codecs.oip.declared import Limits
from service.codecs.oip.request import read_request
from service.codecs.tensors.document import parse
from service.codecs.tensors.members import read_members
from service.codecs.tensors.nested import NeedsWalk
from service.errors import ServiceError
from service.reader import slots
from service.reader.channel import MESSAGE, READY, Task
from service.runtime import heap

log = logging.getLogger("service.reader")


def read(task: Task, body: memoryview, limits: Limits, names: Collection[str]) -> object:
    """Do a task. Returns what is to be raised as an exception; None where the service itself has failed."""
    try:
        if task is Task.PROTOCOL:
            return read_request(body, None, limits)
        document = parse(body, max_elements=limits.elements)
        document.walk = task is not Task.PLAIN_MEMBERS
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
    limits, names = Limits(int(sys.argv[3]), int(sys.argv[4])), frozenset(sys.argv[5].split(","))
    heap.keep()
    gc.freeze()
    with suppress(ConnectionError):  # it was closed with something in it
        channel.send(MESSAGE.pack(READY, 0, 0))
        while message := channel.recv(MESSAGE.size):
            number, task, length = MESSAGE.unpack(message)
            slot = memory[number]
            slot.put_result(read(Task(task), slot.body(length), limits, names))
            channel.send(MESSAGE.pack(number, 0, 0))


if __name__ == "__main__":
    main()
