"""The HTTP service: HTTP in, HTTP out. Never imports torch."""

import os

__version__ = "0.1.0"

# ONNX Runtime 1.31 looks up its maker's host and keeps a database in the home folder unless this is set before it is imported
# (its disable_telemetry_events() comes too late). Nothing that serves pictures may phone home unasked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
