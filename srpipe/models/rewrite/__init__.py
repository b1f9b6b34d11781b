"""Forms of a model's graph that compute the same and run faster on a CPU.

ONNX Runtime runs convolutions in a blocked layout (NCHWc) and fuses what follows them, but leaves it
for operators it has no blocked form of. Each rewrite here expresses one such pattern in operators
that stay inside. ``apply`` makes the graph from the names of rewrites, always the same bytes;
``check`` compares it with the original; ``choose`` measures which are worth it; ``verdict`` keeps what
was found, and is all that a run loads.
"""
