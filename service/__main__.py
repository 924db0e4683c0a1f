"""`python -m service`: settings checked → models loaded, compiled, warmed → socket bound. What is wrong is said; exit status 1."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import uvicorn

from service.api.state import State
from service.app import create_app
from service.runtime.repository import Repository, RepositoryError
from service.runtime.session import ProviderError
from service.settings import Settings, SettingsError, bounds, load_settings, settings_table

log = logging.getLogger("service")

EPILOG = """\
examples:
  python -m service                                    serve ./models on http://127.0.0.1:8000
  python -m service --models /srv/models --port 9000
  POOLSERVE_PROVIDER=cuda python -m service            on the GPU, or not at all
  python -m service --print-settings                   every setting with its value, where it came from, bounds and reason
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m service",
        description="Serve CNNs over HTTP. Every flag is also an environment variable: POOLSERVE_ and its name in capitals.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for name, field in Settings.model_fields.items():
        text = f"{field.description} [{bounds(field)}; default {field.default}]".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="VALUE", help=text)
    parser.add_argument("--print-settings", action="store_true", help="print the settings as a table and exit")
    return parser


def print_settings(settings: Settings, flags: dict[str, str]) -> None:
    """Write the settings as a Markdown table to standard output."""
    lines = ["| setting | value | from | bounds | reason |", "|---|---|---|---|---|"]
    for row in settings_table(settings, flags, os.environ):
        cells = (
            f"`{row.name}`",
            f"`{row.value}`",
            row.source,
            row.bounds.replace("|", "\\|"),
            row.reason.replace("|", "\\|"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


class Server(uvicorn.Server):
    """uvicorn, with an orderly end: on SIGTERM ready says 503, answers go on for `drain_s`, then what is in flight finishes."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal, or Ctrl-C, does not drain."""
        if sig == signal.SIGTERM and not self._state.draining:
            self._state.draining = True
            asyncio.get_running_loop().call_later(self._state.settings.drain_s, self._leave)
            log.info("SIGTERM: not ready from now on, stopping in %g s", self._state.settings.drain_s)
        else:
            self._leave()

    def _leave(self) -> None:
        # Not uvicorn's own handler: it would raise the signal again at the end, and an orderly end is exit status 0.
        self.force_exit = self.should_exit
        self.should_exit = True


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal. Returns the exit status: 0 after an orderly end, 1 if it could not start."""
    flags = vars(_parser().parse_args(arguments))
    only_print = flags.pop("print_settings", False)
    try:
        settings = load_settings(flags, os.environ)
    except SettingsError as error:
        sys.stderr.write(f"poolserve: settings are wrong:\n{error}\n")
        return 1
    if only_print:
        print_settings(settings, flags)
        return 0
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        repository = Repository.load(settings)
    except (RepositoryError, ProviderError) as error:
        sys.stderr.write(f"poolserve: cannot start:\n{error}\n")
        return 1
    app = create_app(settings, repository)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level=settings.log_level,
        access_log=False,  # the middleware's line has the request's id
        timeout_graceful_shutdown=int(settings.timeout_s) + 1,
        server_header=False,
    )
    server = Server(config, app.state.poolserve)
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
