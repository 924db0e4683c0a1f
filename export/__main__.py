"""`python -m export`: networks into ONNX files. Each command's own module is imported when it is called, so that help is quick."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

COMMANDS = {
    "export": (
        "export.commands.export",
        "a backbone and a pooling head, your weights or random ones, into a verified model.onnx",
    ),
    "heads": ("export.commands.heads", "list the pooling heads: what each computes, what can be set"),
    "train": ("export.commands.train", "train a network on handwritten digits of every size and write it"),
    "models": ("export.commands.models", "train and write everything that ships in models/ (up to an hour)"),
    "samples": ("export.commands.samples", "draw the README's pictures: digits at many sizes, in every format"),
    "report": ("export.commands.report", "measure the accuracy of model files by picture size, and write the tables"),
}
"""Command → its module, which has `add_arguments(parser)` and `run(arguments)`, and a line for the help."""

DESCRIPTION = """\
Make model files: CNNs in PyTorch with any pooling head, as ONNX that takes images of any size.

A model is one file. It says itself how pixels become its input, what its classes are called and which sizes it
takes (its card), and it was compared with PyTorch before it was written.
"""


def overview() -> str:
    """Give the text of `python -m export --help`."""
    lines = [f"  {name:<8}{line}" for name, (_, line) in COMMANDS.items()]
    examples = [
        "  python -m export heads",
        "  python -m export export --backbone resnet18 --head gem --num-classes 10 --out models/try/1/model.onnx",
        "  python -m export export --help",
    ]
    parts = ["usage: python -m export COMMAND …", DESCRIPTION.strip(), "commands:\n" + "\n".join(lines)]
    return "\n\n".join([*parts, "examples:\n" + "\n".join(examples)])


def main(argv: list[str]) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit status: 0; 1 where the command failed; 2 where there is no such command (or, by argparse's SystemExit, flag).
    """
    if not argv or argv[0] in {"-h", "--help"}:
        print(overview())
        return 0 if argv else 2
    name, *rest = argv
    if name not in COMMANDS:
        print(f"python -m export: no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    path, line = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"python -m export {name}",
        description=f"{line[0].upper()}{line[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command = import_module(path)
    command.add_arguments(parser)
    arguments = parser.parse_args(rest)
    from export.verify import VerificationError

    try:
        command.run(arguments)
    except (ValueError, OSError, VerificationError) as error:
        print(f"python -m export {name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
