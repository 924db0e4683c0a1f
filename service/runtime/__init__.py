"""Models and the queues before them. `session` is the only file of the service that imports onnxruntime."""
