"""The network and its training-time blocks.

What runs at inference is a plain stack of 3x3 convolutions with ReLU, whose last output is added
to the repeated input before the pixel shuffle: the shape of ECBSR (Zhang, Zeng and Zhang,
"Edge-oriented convolution block for real-time super resolution on mobile devices", ACM MM 2021).
While training, each convolution is a sum of branches. All branches are linear, so they are merged
into one kernel before every step ("online", as in Hu et al., "Online convolutional
re-parameterization", CVPR 2022); a step costs little more than one of the plain stack.

Networks for damaged pictures are deeper, and made of residual pairs of convolutions without
normalisation (Lim et al., "Enhanced deep residual networks", CVPR workshops 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

_SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
_EXPANSION = 2


@dataclass(frozen=True)
class NetworkSettings:
    """The plain network: `convolutions` of 3x3 with `features` between them, RGB to RGB."""

    scale: int = 2
    features: int = 24
    convolutions: int = 6
    colours: int = 3
    smooth: bool = False
    """The input that is added to the last output is enlarged linearly instead of repeated: noise
    that the network does not take away then stays smooth, and shows no squares."""
    residual: bool = False
    """The inner convolutions come in pairs, each added to what it was given; not merged of branches.
    Deep networks, and those that take noise away, learn many times faster so."""
    fold: int = 1
    """Side of the squares of pixels that become channels before the first convolution; above 1
    only at scale 1. A fold of 2 makes every convolution four times cheaper a pixel."""

    def __post_init__(self) -> None:
        if self.fold > 1 and self.scale > 1:
            raise ValueError(f"fold {self.fold} goes with scale 1 only, not {self.scale}")
        if self.smooth and self.scale == 1:
            raise ValueError("smooth goes with scales above 1: there is nothing to enlarge")
        if self.residual and self.convolutions % 2:
            raise ValueError(f"{self.convolutions} convolutions: the inner ones must make pairs")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels before the first convolution and after each."""
        inner = (self.features,) * (self.convolutions - 1)
        before = self.colours * self.fold**2
        return (before, *inner, before * self.scale**2)

    @property
    def receptive_radius_px(self) -> int:
        """How many input pixels away a pixel can still act on an output pixel."""
        return self.convolutions * self.fold + self.fold - 1

    @property
    def parameters(self) -> int:
        """Weights and biases of the merged network."""
        pairs = zip(self.channels, self.channels[1:], strict=False)
        return sum(before * after * 9 + after for before, after in pairs)


class Weights(NamedTuple):
    """One plain convolution: kernel (out, in, 3, 3) and bias (out,)."""

    kernel: Tensor
    bias: Tensor


def merge_pointwise(first: Weights, second: Weights) -> Weights:
    """The one 3x3 convolution that equals a 1x1 (`first`) followed by a 3x3 (`second`).

    `first.kernel` is (middle, in, 1, 1), `second.kernel` (out, middle, 3, 3). Equality at the
    border supposes that the middle layer is padded with `first.bias`, not with zeros.
    """
    kernel = torch.einsum("omhw,mi->oihw", second.kernel, first.kernel[:, :, 0, 0])
    bias = torch.einsum("omhw,m->o", second.kernel, first.bias) + second.bias
    return Weights(kernel, bias)


class EdgeBranch(nn.Module):
    """1x1 convolution, then one fixed edge mask per channel with a learnt strength."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, mask: Tensor) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.strength = nn.Parameter(torch.randn(outputs) * 1e-3)
        self.bias = nn.Parameter(torch.randn(outputs) * 1e-3)
        self.register_buffer("mask", mask, persistent=False)

    def merged(self) -> Weights:
        """The branch as one 3x3 convolution. The masks sum to zero, so `pointwise.bias` drops."""
        masks = self.strength[:, None, None] * self.mask
        kernel = self.pointwise.weight * masks[:, None]
        return Weights(kernel, self.bias)


class EdgeBlock(nn.Module):
    """Sum of a 3x3, a 1x1, a 1x1-3x3, Sobel and Laplacian branches, and the identity if it fits."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = _EXPANSION * outputs
        self.full = nn.Conv2d(inputs, outputs, 3)
        self.point = nn.Conv2d(inputs, outputs, 1)
        self.expand = nn.Conv2d(inputs, middle, 1)
        self.squeeze = nn.Conv2d(middle, outputs, 3)
        sobel = torch.tensor(_SOBEL)
        masks = (sobel, sobel.t().contiguous(), torch.tensor(_LAPLACIAN))
        self.edges = nn.ModuleList(EdgeBranch(inputs, outputs, mask) for mask in masks)
        self.has_identity = inputs == outputs

    def merged(self) -> Weights:
        """All branches as one 3x3 convolution."""
        centre = self.point.weight
        if self.has_identity:
            eye = torch.eye(centre.shape[0], dtype=centre.dtype, device=centre.device)
            centre = centre + eye[:, :, None, None]
        parts = [
            _weights(self.full),
            Weights(functional.pad(centre, (1, 1, 1, 1)), _weights(self.point).bias),
            merge_pointwise(_weights(self.expand), _weights(self.squeeze)),
            *(edge.merged() for edge in self.edges if isinstance(edge, EdgeBranch)),
        ]
        kernel = torch.stack([part.kernel for part in parts]).sum(dim=0)
        bias = torch.stack([part.bias for part in parts]).sum(dim=0)
        return Weights(kernel, bias)


class PlainBlock(nn.Module):
    """One 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int, gain: float) -> None:
        """Begin as He et al. (ICCV 2015) do, times `gain`."""
        super().__init__()
        self.full = nn.Conv2d(inputs, outputs, 3)
        nn.init.kaiming_normal_(self.full.weight)
        nn.init.zeros_(self.full.bias)
        with torch.no_grad():
            self.full.weight *= gain

    def merged(self) -> Weights:
        """The convolution itself."""
        return _weights(self.full)


def _weights(convolution: nn.Conv2d) -> Weights:
    if convolution.bias is None:
        raise ValueError("the branches need a bias")
    return Weights(convolution.weight, convolution.bias)


class Upscaler(nn.Module):
    """The trainable network: images (batch, 3, h, w) in [0, 1] to (batch, 3, h*scale, w*scale)."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        pairs = zip(settings.channels, settings.channels[1:], strict=False)
        if settings.residual:
            last = settings.convolutions - 1
            self.blocks = nn.ModuleList(
                PlainBlock(before, after, _first_gain(number, last))
                for number, (before, after) in enumerate(pairs)
            )
        else:
            self.blocks = nn.ModuleList(EdgeBlock(before, after) for before, after in pairs)

    def merged(self) -> list[Weights]:
        """The plain convolutions that the blocks amount to now, in order."""
        return [
            block.merged() for block in self.blocks if isinstance(block, EdgeBlock | PlainBlock)
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Upscale `images` with the merged convolutions."""
        return upscale(images, self.merged(), self.settings)


def _first_gain(number: int, last: int) -> float:
    """Residual networks begin near the identity: what is added to the trunk begins small."""
    if number == last:
        return 0.1
    return 0.2 if number and number % 2 == 0 else 1.0


def upscale(
    images: Tensor, weights: Sequence[Weights], settings: NetworkSettings, *, bfloat16: bool = False
) -> Tensor:
    """Run the plain network; the result is not clipped.

    Args:
        images: (batch, 3, height, width) in [0, 1], sides multiples of `settings.fold`.
        weights: the plain convolutions, in order.
        settings: the network they belong to.
        bfloat16: compute all but the first convolution and the sum in bfloat16.
    """
    folded = functional.pixel_unshuffle(images, settings.fold)
    features = functional.relu(_convolve(folded, weights[0]))
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        inner = weights[1:-1]
        if settings.residual:
            for first, second in zip(inner[::2], inner[1::2], strict=True):
                inside = functional.relu(_convolve(features, first))
                features = features + _convolve(inside, second)
        else:
            for layer in inner:
                features = functional.relu(_convolve(features, layer))
        detail = _convolve(features, weights[-1])
    if settings.smooth:
        base = functional.interpolate(
            images, scale_factor=settings.scale, mode="bilinear", align_corners=False
        )
        return functional.pixel_shuffle(detail.float(), settings.scale) + base
    repeated = folded.repeat_interleave(settings.scale**2, dim=1)
    return functional.pixel_shuffle(detail.float() + repeated, settings.fold * settings.scale)


def _convolve(features: Tensor, layer: Weights) -> Tensor:
    return functional.conv2d(features, layer.kernel, layer.bias, padding=1)
