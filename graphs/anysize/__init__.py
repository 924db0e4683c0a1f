"""The any-size compiler: a CNN of any size made exact on canvases with padding, and in tiles. Pure: onnx-ir and numpy."""
