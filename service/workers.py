"""Several serving processes on one port, for small models, where Python and not the model is the limit."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
from multiprocessing.connection import wait
from types import FrameType

from service.cores import available_cores
from service.server import serve
from service.settings import Settings

log = logging.getLogger("service.workers")


def _work(settings: Settings) -> None:
    sys.exit(serve(settings, share_port=True))


def supervise(settings: Settings) -> int:
    """Run `settings.workers` processes until a signal, or until one ends by itself: then all end, for the orchestrator to see.

    Each has its own copy of the models, and its share of the cores where `threads` does not say otherwise.

    Returns:
        The exit status: 0 if it was asked to stop and every process ended in order.
    """
    share = settings.threads or max(1, available_cores() // settings.workers)
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    arguments = (settings.model_copy(update={"threads": share}),)
    processes = [context.Process(target=_work, args=arguments, name=f"worker-{n}") for n in range(settings.workers)]
    asked = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for process in processes:
            if process.is_alive():
                process.terminate()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    for process in processes:
        process.start()
    first = wait([process.sentinel for process in processes])[0]
    if not asked:
        ended = next(process for process in processes if process.sentinel == first)
        ended.join()
        log.error("%s (pid %s) ended by itself with status %s; stopping all", ended.name, ended.pid, ended.exitcode)
        for process in processes:
            process.terminate()
    for process in processes:
        process.join()
    return 0 if asked and all(process.exitcode == 0 for process in processes) else 1
