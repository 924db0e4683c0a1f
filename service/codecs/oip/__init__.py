"""The Open Inference Protocol's bytes: requests to tensors, tensors to answers. Nothing of models or HTTP belongs here.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; Triton's docs/protocol for
the extensions `binary_tensor_data`, `classification` and `parameters`.
"""
