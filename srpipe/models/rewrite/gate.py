"""Gates, which multiply two halves of a convolution's channels, as two convolutions.

ONNX Runtime leaves its blocked layout to cut a tensor in two. A convolution whose output is cut is
two with half of the weights each, and so is a depthwise convolution after it: the product of their
results needs no cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto, helper

from srpipe.models.rewrite.editor import Editor, attribute

_OPSET_WITH_INPUTS = 13
_Cut = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Halves:
    nodes: list[NodeProto]
    source: str
    cuts: tuple[_Cut, _Cut]
    """First channel, and the one after the last."""


def gate_by_two_convolutions(graph: Editor) -> int:
    """Rewrite products of two parts of a convolution's channels; returns how many there were."""
    places = 0
    for product in graph.nodes("Mul"):
        halves = _match(graph, product)
        layers = [] if halves is None else _layers(graph, halves)
        if halves is None or not layers:
            continue
        new: list[NodeProto] = []
        ends = [str(layers[0].input[0])] * 2
        for layer in layers:
            parts = [_part(graph, layer, x, cut) for x, cut in zip(ends, halves.cuts, strict=True)]
            ends = [str(part.output[0]) for part in parts]
            new += parts
        new.append(graph.node("Mul", ends, product.output[0]))
        graph.replace([*layers, *halves.nodes, product], new)
        places += 1
    return places


def _match(graph: Editor, product: NodeProto) -> _Halves | None:
    if graph.opset < _OPSET_WITH_INPUTS or product.input[0] == product.input[1]:
        return None
    split = graph.maker(product.input[0], "Split")
    if split is not None:
        return _match_split(graph, split, product)
    slices = [graph.maker(name, "Slice") for name in product.input]
    cuts, nodes, sources = [], [], set()
    for node in slices:
        cut = None if node is None else _cut(graph, node)
        if node is None or cut is None or graph.only_user(node.output[0], "Mul") is None:
            return None
        cuts.append(cut)
        nodes.append(node)
        sources.add(str(node.input[0]))
    if len(sources) != 1 or cuts[0][1] - cuts[0][0] != cuts[1][1] - cuts[1][0]:
        return None
    return _Halves(nodes, sources.pop(), (cuts[0], cuts[1]))


def _match_split(graph: Editor, split: NodeProto, product: NodeProto) -> _Halves | None:
    channels = graph.channels(split.input[0])
    if channels is None or channels % 2 or list(split.output) != list(product.input):
        return None
    half = channels // 2
    sizes = graph.ints(split.input[1]) if len(split.input) == 2 else [half, half]
    alone = all(graph.only_user(name, "Mul") is not None for name in split.output)
    if attribute(split, "axis", 0) != 1 or sizes != [half, half] or not alone:
        return None
    return _Halves([split], str(split.input[0]), ((0, half), (half, channels)))


def _cut(graph: Editor, node: NodeProto) -> _Cut | None:
    """The channels that a Slice takes, if it takes some in a row."""
    channels = graph.channels(node.input[0])
    numbers = [graph.ints(name) for name in node.input[1:]]
    if channels is None or len(numbers) not in (3, 4) or numbers[3:] not in ([], [[1]]):
        return None
    starts, ends, axes = numbers[:3]
    if axes not in ([1], [-3]) or not starts or not ends:
        return None
    first, last, _ = slice(starts[0], ends[0]).indices(channels)
    return (first, last) if first < last else None


def _layers(graph: Editor, halves: _Halves) -> list[NodeProto]:
    """The convolutions to cut, in order; none where something else uses their results."""
    users = graph.users(halves.source)
    last = graph.maker(halves.source, "Conv")
    ours = {id(node) for node in halves.nodes}
    if users is None or last is None or any(id(user) not in ours for user in users):
        return []
    if not _has_weights(graph, last):
        return []
    if attribute(last, "group", 1) == 1:
        return [last]
    kernel = graph.floats(last.input[1])
    first = graph.maker(last.input[0], "Conv")
    depthwise = kernel is not None and attribute(last, "group", 1) == len(kernel)
    if not depthwise or first is None or graph.only_user(first.output[0], "Conv") is None:
        return []
    if not _has_weights(graph, first) or attribute(first, "group", 1) != 1:
        return []
    if graph.channels(first.output[0]) != attribute(last, "group", 1):
        return []
    return [first, last]


def _has_weights(graph: Editor, node: NodeProto) -> bool:
    return all(graph.floats(name) is not None for name in node.input[1:])


def _part(graph: Editor, node: NodeProto, x: str, cut: _Cut) -> NodeProto:
    """A convolution to some of its output channels."""
    weights = [graph.floats(name) for name in node.input[1:]]
    names = [graph.weight(values[slice(*cut)]) for values in weights if values is not None]
    part = graph.node("Conv", [x, *names])
    part.attribute.extend(entry for entry in node.attribute if entry.name != "group")
    if attribute(node, "group", 1) > 1:  # depthwise
        part.attribute.append(helper.make_attribute("group", cut[1] - cut[0]))
    return part
