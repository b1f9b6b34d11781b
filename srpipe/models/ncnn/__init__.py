"""ncnn's .param and .bin as ONNX graphs: the format, its layers, and ncnn itself to compare with."""
