"""The training loop: a budget of minutes, a checkpoint to go on from, a model as it goes."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .data import PatchSource
from .evaluate import Judge, mean_score, open_session
from .export import build_model, write_model
from .network import NetworkSettings, Upscaler, Weights, upscale

logger = logging.getLogger(__name__)

_CHARBONNIER_EPSILON = 1e-3
_LOG_EVERY_STEPS = 500
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class TrainSettings:
    """How long and how to train.

    The learning rate warms up over `warm_up_steps`, then follows half a cosine from
    `learning_rate` to `final_learning_rate` over the time budget. The loss is Charbonnier's until
    `squared_from` of the budget, then the mean square, which is what PSNR measures.
    """

    minutes: float
    device: str = "cpu"
    threads: int = 2
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-6
    warm_up_steps: int = 200
    squared_from: float = 0.75
    luma_weight: float = 0.0
    """Share of the loss that looks at luma alone, 0 to 1: PSNR of luma is what papers report."""
    bfloat16: bool = False
    """Compute the inner convolutions in bfloat16: twice as fast where the processor knows it."""
    average_decay: float = 0.999
    report_minutes: float = 10.0
    seed: int = 1


class Trainer:
    """Holds everything that a checkpoint must hold, and takes steps."""

    def __init__(
        self, network: NetworkSettings, settings: TrainSettings, patches: PatchSource
    ) -> None:
        torch.manual_seed(settings.seed)
        torch.set_num_threads(settings.threads)
        self.settings = settings
        self.network = network
        self.upscaler = Upscaler(network).to(settings.device)
        self.optimiser = torch.optim.Adam(self.upscaler.parameters(), betas=(0.9, 0.99))
        self.averaged = [_detached(layer) for layer in self.upscaler.merged()]
        self.steps = 0
        self.elapsed_s = 0.0
        self._patches = patches

    @property
    def progress(self) -> float:
        """The part of the time budget that is spent, 0 to 1."""
        return min(1.0, self.elapsed_s / (self.settings.minutes * 60))

    def step(self) -> float:
        """Draw a batch, move the weights, and return the loss."""
        low, high = (
            torch.from_numpy(patch).to(self.settings.device).float().div_(255)
            for patch in self._patches.draw()
        )
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.settings, self.steps, self.progress)
        is_squared = self.progress >= self.settings.squared_from
        weights = self.upscaler.merged()
        result = upscale(low, weights, self.network, bfloat16=self.settings.bfloat16)
        loss = restoration_loss(result, high, is_squared, self.settings.luma_weight)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.upscaler.parameters(), 1.0)
        self.optimiser.step()
        self._average(weights)
        self.steps += 1
        return float(loss.detach())

    def _average(self, weights: Sequence[Weights]) -> None:
        # Averages of few steps would keep the random start, so the decay grows into its value.
        decay = min(self.settings.average_decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for mean, now in zip(self.averaged, weights, strict=True):
                mean.kernel.lerp_(now.kernel, 1 - decay)
                mean.bias.lerp_(now.bias, 1 - decay)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {
            "network": asdict(self.network),
            "upscaler": self.upscaler.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "averaged": [tuple(layer) for layer in self.averaged],
            "random": self._patches.random_state,
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of the same network."""
        if state["network"] != asdict(self.network):
            raise ValueError(f"the checkpoint is of another network: {state['network']}")
        self.upscaler.load_state_dict(state["upscaler"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.averaged = [Weights(*layer) for layer in state["averaged"]]
        self._patches.random_state = state["random"]
        self.steps, self.elapsed_s = state["steps"], state["elapsed_s"]


def learning_rate(settings: TrainSettings, steps: int, progress: float) -> float:
    """Warm-up by steps, then half a cosine over `progress` (0 to 1) of the budget."""
    warm_up = min(1.0, (steps + 1) / settings.warm_up_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    span = settings.learning_rate - settings.final_learning_rate
    return warm_up * (settings.final_learning_rate + span * cosine)


def restoration_loss(
    result: Tensor, truth: Tensor, is_squared: bool, luma_weight: float = 0.0
) -> Tensor:
    """Charbonnier's loss (a smooth L1), or the mean square, of RGB images in [0, 1].

    `luma_weight` of it is that of BT.601 luma, the rest the mean over the colours.
    """
    loss = _mean_loss(result - truth, is_squared)
    if luma_weight == 0:
        return loss
    luma = torch.tensor(_LUMA, device=result.device).view(1, 3, 1, 1)
    luma_loss = _mean_loss(((result - truth) * luma).sum(dim=1), is_squared)
    return (1 - luma_weight) * loss + luma_weight * luma_loss


def _mean_loss(difference: Tensor, is_squared: bool) -> Tensor:
    squares = difference.square()
    if is_squared:
        return squares.mean()
    return (squares + _CHARBONNIER_EPSILON**2).sqrt().mean()


def train(
    trainer: Trainer, judge: Judge, metadata: Mapping[str, str], out: Path, checkpoint: Path
) -> None:
    """Train until the budget is spent, writing `checkpoint` and `out` now and then and at the end.

    With the budget spent already, this only scores and writes `out` anew.
    """
    next_report_s = _next_report_s(trainer)
    losses: list[float] = []
    while trainer.progress < 1:
        start_s = time.monotonic()
        losses.append(trainer.step())
        trainer.elapsed_s += time.monotonic() - start_s
        if trainer.steps % _LOG_EVERY_STEPS == 0:
            mean_loss = sum(losses) / len(losses)
            logger.info(
                "step %d, %.1f min, loss %.6f", trainer.steps, trainer.elapsed_s / 60, mean_loss
            )
            losses.clear()
        if trainer.elapsed_s >= next_report_s:
            next_report_s = _next_report_s(trainer)
            save_checkpoint(trainer, checkpoint)
            _report(trainer, judge, metadata, out)
    save_checkpoint(trainer, checkpoint)
    _report(trainer, judge, metadata, out)


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write a checkpoint atomically."""
    unfinished = path.with_name(f".{path.name}.part")
    torch.save(trainer.state(), unfinished)
    os.replace(unfinished, path)


def load_checkpoint(path: Path, device: str) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def _next_report_s(trainer: Trainer) -> float:
    interval_s = trainer.settings.report_minutes * 60
    return (trainer.elapsed_s // interval_s + 1) * interval_s


def _report(trainer: Trainer, judge: Judge, metadata: Mapping[str, str], out: Path) -> None:
    unscored = build_model(trainer.network, trainer.averaged, metadata)
    score = mean_score(judge.scores(open_session(unscored.SerializeToString())))
    logger.info(
        "step %d, %.1f min: bicubic %.3f dB, model %.3f dB, gain %.3f dB",
        trainer.steps,
        trainer.elapsed_s / 60,
        score.plain_db,
        score.model_db,
        score.gain_db,
    )
    scored = {
        **metadata,
        "psnr_luma_db": f"{score.model_db:.2f}",
        "bicubic_psnr_luma_db": f"{score.plain_db:.2f}",
    }
    write_model(build_model(trainer.network, trainer.averaged, scored), out)


def _detached(layer: Weights) -> Weights:
    return Weights(layer.kernel.detach().clone(), layer.bias.detach().clone())
