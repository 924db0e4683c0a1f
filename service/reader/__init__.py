"""A process beside the serving one that reads JSON: parsing holds the interpreter's lock, so that threads do not help."""
