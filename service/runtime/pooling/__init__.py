"""Runs the operators: a request is prepared once, its work cut into blocks of regions and chunks of rows."""
