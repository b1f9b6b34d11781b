"""PyTorch weights as ONNX graphs, through spandrel: loaded without running code, exported, checked."""
