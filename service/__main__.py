"""`python -m service`: settings checked → models loaded, compiled, warmed → socket bound. What is wrong is said; exit status 1."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence

if __name__ == "__main__":
    gc.disable()  # importing makes much and leaves nothing behind: a tenth of it would be looking for garbage

from service.server import serve
from service.settings import Settings, SettingsError, bounds, load_settings, settings_table
from service.workers import supervise

gc.enable()

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
    return serve(settings) if settings.workers == 1 else supervise(settings)


if __name__ == "__main__":
    sys.exit(main())
