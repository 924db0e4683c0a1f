"""ONNX in, ONNX out: cards, fronts and graph transformations. No torch, no onnxruntime, no HTTP here."""
