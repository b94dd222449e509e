"""The training loop: sequences in, trained beacon parameters out, resumable at any checkpoint.

In:  a frozen language model, beacon parameters, stages of sequences.
Out: the same parameters, trained; the curve of the loss.
Wrong: a loss that is not a number stops the run at once, naming the step and the sequences; the last checkpoint is
       kept.

Several processes (`accelerate launch`) each take their share of a step's sequences and average the gradients. Random
choices of a step depend only on the seed and the step's number, so a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup

from memorag_pipeline.errors import TrainingError
from memorag_pipeline.evaluation.curve import CurvePoint
from memorag_pipeline.memory.engine.beacon_config import ATTENDED
from memorag_pipeline.memory.engine.beacon_parameters import BeaconParameters
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.network import Network, normalize
from memorag_pipeline.progress import track
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.training.attended_pass import hidden_states_attended
from memorag_pipeline.training.checkpoints import Checkpoints, Position
from memorag_pipeline.training.loss import IGNORED, loss_sum
from memorag_pipeline.training.packing import PackedSequence
from memorag_pipeline.training.parameters import tensors_of
from memorag_pipeline.training.windows_pass import Layout, hidden_states

logger = logging.getLogger(__name__)

_BETAS = (0.9, 0.95)
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Stage:
    """The data of `tokens` tokens of training; `sequences` reads an epoch of it."""

    name: str
    tokens: int
    learning_rate: float
    sequences: Callable[[int], Iterator[PackedSequence]]


class Trainer:
    """Trains the beacons of one model. `measure`, if given, returns the gap closed whenever a checkpoint is written."""

    def __init__(
        self,
        model: LanguageModel,
        parameters: BeaconParameters,
        spec: TrainingSpec,
        checkpoints: Checkpoints | None = None,
        measure: Callable[[], float] | None = None,
    ) -> None:
        from accelerate import PartialState

        self.spec, self.parameters, self.checkpoints, self.measure = spec, parameters, checkpoints, measure
        self.network = Network(model.model, parameters)
        self.processes = PartialState(cpu=model.device.type == "cpu")
        self.trained = {name: tensor for name, tensor in tensors_of(parameters).items() if tensor.requires_grad}
        self.position = Position()

    def train(self, stages: Sequence[Stage]) -> Position:
        """Go through all stages, from the newest checkpoint on if there is one."""
        found = self.checkpoints.newest() if self.checkpoints is not None else None
        tensors: dict[str, Tensor] = {}
        if found is not None:
            self.position, tensors = found
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(tensors[name])
            logger.info("going on after %d steps of stage %s", self.position.steps, stages[self.position.stage].name)
        for number in range(self.position.stage, len(stages)):
            if number > self.position.stage:
                self.position = replace(self.position, stage=number, steps=0, tokens=0, epoch=0, taken=0)
                tensors = {}
            self._train_stage(stages[number], tensors)
        return self.position

    def _train_stage(self, stage: Stage, tensors: dict[str, Tensor]) -> None:
        schedule = self.spec.schedule
        steps = -(-stage.tokens // schedule.batch_tokens)
        rate = stage.learning_rate
        groups = [{"params": list(self.trained.values()), "initial_lr": rate}]
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=_BETAS, weight_decay=0.0)
        self._restore(optimizer, tensors)
        warm_up = max(1, round(schedule.warm_up * steps))
        rates = get_cosine_schedule_with_warmup(optimizer, warm_up, steps, last_epoch=self.position.steps - 1)
        batches = self._batches(stage)
        before = sum(point.tokens for point in self.position.curve[-1:])
        losses, unsaved = list[float](), 0
        with track(f"train on {stage.name}", stage.tokens, "tokens") as bar:
            bar.skip(self.position.tokens)
            started = time.perf_counter()
            for step in range(self.position.steps, steps):
                epoch, taken, batch = next(batches)
                losses.append(self._step(stage, step, batch, optimizer))
                rates.step()
                if self.measure is not None and not self.position.curve:
                    # The learning rate of step 0 is 0, so nothing has been trained yet.
                    self.position = replace(self.position, curve=(CurvePoint(0, losses[0], self.measure()),))
                tokens = schedule.batch_tokens
                unsaved += tokens
                bar.advance(tokens)
                seconds = self.position.seconds + time.perf_counter() - started
                started = time.perf_counter()
                self.position = replace(
                    self.position,
                    steps=step + 1,
                    tokens=self.position.tokens + tokens,
                    epoch=epoch,
                    taken=taken,
                    seconds=seconds,
                )
                if unsaved >= schedule.checkpoint_tokens or step + 1 == steps:
                    before += unsaved
                    self._note(CurvePoint(before, math.fsum(losses) / len(losses)), optimizer)
                    losses, unsaved = [], 0
                    started = time.perf_counter()

    def _step(
        self, stage: Stage, step: int, batch: Sequence[PackedSequence], optimizer: torch.optim.Optimizer
    ) -> float:
        """One step; returns its mean loss."""
        from accelerate.utils import reduce

        loss = self.loss(batch, step)
        loss.backward()
        for parameter in self.trained.values():
            if self.processes.num_processes > 1:
                parameter.grad = reduce(parameter.grad, "mean")
        norm = torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.spec.schedule.clip)
        found = float(reduce(loss.detach(), "mean"))
        if not (math.isfinite(found) and bool(norm.isfinite())):
            raise TrainingError(
                f"the loss is no longer a number at step {step} on {stage.name}"
                f" ({', '.join(sequence.source for sequence in batch)}); the last checkpoint is kept: train again with"
                " a smaller schedule.learning_rate, or without these documents"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return found

    def loss(self, batch: Sequence[PackedSequence], step: int) -> Tensor:
        """Mean loss of the labels of some sequences of equal length, with the ratios of this step."""
        network, spec = self.network, self.spec
        token_ids = torch.stack([sequence.token_ids for sequence in batch]).to(network.device)
        labels = torch.stack([sequence.labels for sequence in batch]).to(network.device)
        tokens = token_ids.shape[1]
        # Where no memory is yet, attended beacons change nothing.
        if not spec.first_window or spec.placement == ATTENDED:
            labels[:, : spec.window] = IGNORED
        draw = random.Random(f"{spec.schedule.seed}:{step}")
        ratios = [draw.choice(spec.ratios) for _ in range(-(-tokens // spec.window))]
        hidden = self._outputs(self._hidden_states(token_ids, ratios))
        targets = labels[:, 1:].flatten()
        counted = int((targets != IGNORED).sum())
        teacher, share = self._teacher(token_ids)
        return loss_sum(hidden, network.head.weight, targets, teacher, share) / max(counted, 1)

    def _hidden_states(self, token_ids: Tensor, ratios: Sequence[int]) -> Tensor:
        spec = self.spec
        if spec.placement == ATTENDED:
            return hidden_states_attended(
                self.network, token_ids, spec.window, spec.sink, ratios, spec.activation_checkpointing
            )
        layout = Layout.of(token_ids.shape[1], spec.window, spec.sink, ratios)
        return hidden_states(self.network, token_ids, layout, spec.activation_checkpointing)

    def _teacher(self, token_ids: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Outputs of the model with full context, and their share of the loss: 0 where there is no memory yet."""
        spec, (count, tokens) = self.spec, token_ids.shape
        if not spec.distillation:
            return None, None
        with torch.no_grad():
            layout = Layout.of(tokens, tokens, 0, (0,))
            outputs = self._outputs(hidden_states(self.network, token_ids, layout))
        after = torch.arange(tokens - 1, device=token_ids.device) >= spec.window
        return outputs, (after * spec.distillation).float().repeat(count)

    def _outputs(self, hidden: Tensor) -> Tensor:
        """Inputs of the head at all tokens that another follows, [rows, hidden]."""
        return normalize(self.network.norm, hidden)[:, :-1].flatten(0, 1)

    def _batches(self, stage: Stage) -> Iterator[tuple[int, int, list[PackedSequence]]]:
        """Batches from the position on, this process's share of each, with the epoch and how much of it was used."""
        schedule = self.spec.schedule
        count, mine = schedule.batch_tokens // schedule.sequence_tokens, self.processes
        if count % mine.num_processes:
            raise TrainingError(
                f"a step has {count} sequences, which {mine.num_processes} processes cannot share;"
                " make schedule.batch_tokens a multiple of sequence_tokens times the processes"
            )
        epoch, taken = self.position.epoch, self.position.taken
        while True:
            sequences = itertools.islice(stage.sequences(epoch), taken, None)
            batch = list(itertools.islice(sequences, count))
            if not batch and not taken:
                raise TrainingError(f"there is nothing to train on in stage {stage.name}: no sequence was read")
            while len(batch) == count:
                taken += count
                yield epoch, taken, batch[mine.process_index :: mine.num_processes]
                batch = list(itertools.islice(sequences, count))
            if not taken:
                raise TrainingError(
                    f"stage {stage.name} has {len(batch)} sequences, fewer than the {count} of a step; make"
                    " schedule.batch_tokens smaller, or give more text"
                )
            epoch, taken = epoch + 1, 0

    def _note(self, point: CurvePoint, optimizer: torch.optim.Optimizer) -> None:
        """Add to the curve, and write a checkpoint."""
        if self.measure is not None:
            point = replace(point, gap=self.measure())
        shown = "" if point.gap is None else f", {point.gap:.1%} of the gap closed"
        logger.info("%d tokens: loss %.4f%s", point.tokens, point.loss, shown)
        self.position = replace(self.position, curve=(*self.position.curve, point))
        if self.checkpoints is not None and self.processes.is_main_process:
            moments = {
                f"{moment}.{name}": optimizer.state[parameter][moment]
                for name, parameter in self.trained.items()
                for moment in _MOMENTS
            }
            self.checkpoints.write(self.position, dict(self.trained) | moments)

    def _restore(self, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
        """Give the optimizer what a checkpoint holds of it."""
        for name, parameter in self.trained.items():
            if f"{_MOMENTS[0]}.{name}" in tensors:
                moments = {moment: tensors[f"{moment}.{name}"].to(parameter.device) for moment in _MOMENTS}
                optimizer.state[parameter] = {"step": torch.tensor(float(self.position.steps)), **moments}
