"""PyTorch in, ONNX out: networks with configurable pooling heads, trained, exported and verified. Offline."""
