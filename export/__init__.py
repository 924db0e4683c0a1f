"""PyTorch in, ONNX out: networks with configurable pooling heads, trained, exported and verified. Offline."""

import os

# As in service/__init__.py: ONNX Runtime phones home unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
