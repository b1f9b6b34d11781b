"""One external system each: libvips, ONNX Runtime, memory-mapped files, the disk."""
