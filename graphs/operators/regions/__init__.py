"""Region systems: which cells of a plane each cell of the answer is pooled from. NumPy only, no ONNX here."""
