"""The subcommands of `python -m export`, one a file: `add_arguments(parser)` and `run(arguments)`. No work is done here."""
