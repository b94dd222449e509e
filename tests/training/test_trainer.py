"""The loop: the same run twice, in one go and with a break; what stops it; the file that comes out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from memorag_pipeline.errors import MemoryMismatchError, StorageError, TrainingError
from memorag_pipeline.memory.engine.beacon_parameters import BeaconParameters
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.blobs import Blobs
from memorag_pipeline.training.adapter import write_adapter
from memorag_pipeline.training.checkpoints import Checkpoints, Position
from memorag_pipeline.training.packing import PackedSequence
from memorag_pipeline.training.parameters import memory_model, tensors_of, trainable
from memorag_pipeline.training.trainer import Stage, Trainer

TOKENS, SEQUENCE, BATCH = 2048, 96, 192
ATTENDED: dict[str, Any] = {"placement": "attended", "ratios": [4, 8]}


def spec_of(model: LanguageModel, tmp_path: Path, **changes: Any) -> TrainingSpec:
    schedule = {
        "tokens": TOKENS,
        "sequence_tokens": SEQUENCE,
        "batch_tokens": BATCH,
        "checkpoint_tokens": 4 * BATCH,
        "learning_rate": 5e-3,
    } | changes.pop("schedule", {})
    values = {
        "adapter": "tiny-adapter",
        "store": {"uri": str(tmp_path / "store")},
        "model": str(model.resolved.folder),
        "data": {"text": ["unused"]},
        "window": 32,
        "ratios": [4],
        "placement": "interleave",
        "schedule": schedule,
    }
    return TrainingSpec.model_validate(values | changes)


def sequences(epoch: int) -> Iterator[PackedSequence]:
    """Texts that say everything twice, so that there is something to remember."""
    generator = torch.Generator().manual_seed(epoch)
    for number in range(8):
        half = torch.randint(100, 400, (SEQUENCE // 2,), generator=generator)
        tokens = torch.cat([half, half])
        yield PackedSequence(tokens, tokens.clone(), f"text {epoch}.{number}")


STAGE = Stage("texts", TOKENS, 5e-3, sequences)


def run(
    model: LanguageModel, spec: TrainingSpec, checkpoints: Checkpoints | None = None, stage: Stage = STAGE
) -> tuple[BeaconParameters, Position]:
    parameters = trainable(model, spec)
    return parameters, Trainer(model, parameters, spec, checkpoints).train([stage])


def same(one: BeaconParameters, other: BeaconParameters) -> bool:
    pairs = zip(tensors_of(one).values(), tensors_of(other).values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


@pytest.mark.parametrize("changes", [{}, ATTENDED, ATTENDED | {"rank": 4}], ids=str)
def test_the_loss_falls_and_the_base_stays(tiny: LanguageModel, tmp_path: Path, changes: dict[str, Any]) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    spec = spec_of(tiny, tmp_path, **changes)
    trainer = Trainer(tiny, trainable(tiny, spec), spec)
    known = list(sequences(0))
    at_first = trainer.loss(known, 0).item()
    position = trainer.train([Stage("texts", TOKENS, 5e-3, lambda _: iter(known))])
    assert trainer.loss(known, 0).item() < at_first - 0.01
    assert position.curve[-1].tokens == position.tokens == -(-TOKENS // BATCH) * BATCH
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"ratios": [2, 4, 8]},
        {"rank": 4},
        {"distillation": 0.5},
        ATTENDED,
        ATTENDED | {"activation_checkpointing": True},
    ],
    ids=str,
)
def test_a_seed_gives_the_same_run(tiny: LanguageModel, tmp_path: Path, changes: dict[str, Any]) -> None:
    spec = spec_of(tiny, tmp_path, **changes)
    (one, position), (other, again) = run(tiny, spec), run(tiny, spec)
    assert same(one, other)
    assert position.curve == again.curve
    other_seed = spec_of(tiny, tmp_path, **changes, schedule={"seed": 1})
    assert "ratios" not in changes or not same(one, run(tiny, other_seed)[0])


@pytest.mark.parametrize("changes", [{}, ATTENDED], ids=["interleave", "attended"])
def test_a_run_with_a_break_is_the_same(tiny: LanguageModel, tmp_path: Path, changes: dict[str, Any]) -> None:
    spec = spec_of(tiny, tmp_path, **changes)
    whole, position = run(tiny, spec)
    checkpoints = Checkpoints(CorpusStore(str(tmp_path / "store")), "a" * 64)

    def breaking(epoch: int) -> Iterator[PackedSequence]:
        for number, sequence in enumerate(sequences(epoch)):
            if (epoch, number) == (1, 6):
                raise KeyboardInterrupt
            yield sequence

    with pytest.raises(KeyboardInterrupt):
        run(tiny, spec, checkpoints, Stage("texts", TOKENS, 5e-3, breaking))
    found = checkpoints.newest()
    assert found is not None and 0 < found[0].tokens < TOKENS
    resumed, again = run(tiny, spec, checkpoints)
    assert same(whole, resumed)
    assert again.curve == position.curve
    done, _ = run(tiny, spec, checkpoints)
    assert same(done, whole)


def test_stages_follow_each_other(tiny: LanguageModel, tmp_path: Path) -> None:
    spec = spec_of(tiny, tmp_path)
    checkpoints = Checkpoints(CorpusStore(str(tmp_path / "store")), "b" * 64)
    stages = [STAGE, Stage("instructions", 2 * BATCH, 1e-3, sequences)]
    position = Trainer(tiny, trainable(tiny, spec), spec, checkpoints).train(stages)
    assert position.stage == 1 and position.tokens == 2 * BATCH
    assert position.curve[-1].tokens == -(-TOKENS // BATCH) * BATCH + 2 * BATCH
    assert Trainer(tiny, trainable(tiny, spec), spec, checkpoints).train(stages).curve == position.curve


def test_a_loss_that_is_no_number_stops_the_run(tiny: LanguageModel, tmp_path: Path) -> None:
    spec = spec_of(tiny, tmp_path)
    checkpoints = Checkpoints(CorpusStore(str(tmp_path / "store")), "c" * 64)
    parameters = trainable(tiny, spec)
    trainer = Trainer(tiny, parameters, spec, checkpoints)

    def poisoned(epoch: int) -> Iterator[PackedSequence]:
        for number, sequence in enumerate(sequences(epoch)):
            if (epoch, number) == (1, 4):
                assert parameters.embedding is not None
                parameters.embedding.data.fill_(torch.nan)
            yield sequence

    with pytest.raises(TrainingError, match=r"no longer a number at step \d+ on texts \(text 1\.\d, text 1\.\d\)"):
        trainer.train([Stage("texts", TOKENS, 5e-3, poisoned)])
    found = checkpoints.newest()
    assert found is not None
    assert all(bool(tensor.isfinite().all()) for tensor in found[1].values())


def test_a_full_disk_keeps_the_last_checkpoint(
    tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tiny, tmp_path)
    checkpoints = Checkpoints(CorpusStore(str(tmp_path / "store")), "d" * 64)
    put_file, calls = Blobs.put_file, []

    def full(self: Blobs, path: Path) -> Any:
        calls.append(path)
        if len(calls) > 1:
            raise StorageError("no space left on device")
        return put_file(self, path)

    monkeypatch.setattr(Blobs, "put_file", full)
    with pytest.raises(StorageError, match=r"checkpoint at step 8 cannot be written .*no space left.* before is kept"):
        run(tiny, spec, checkpoints)
    found = checkpoints.newest()
    assert found is not None and found[0].steps == 4


@pytest.mark.parametrize(("texts", "message"), [(0, "no sequence was read"), (1, "1 sequences, fewer than the 2")])
def test_too_little_to_train_on(tiny: LanguageModel, tmp_path: Path, texts: int, message: str) -> None:
    stage = Stage("texts", TOKENS, 5e-3, lambda epoch: iter(list(sequences(epoch))[:texts]))
    with pytest.raises(TrainingError, match=message):
        run(tiny, spec_of(tiny, tmp_path), None, stage)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rank": 4},
        {"projections": ["q", "k", "v", "o"], "start": "eos"},
        {"start": "mean", "ratios": [4, 8]},
        ATTENDED,
        ATTENDED | {"rank": 4},
    ],
    ids=str,
)
def test_the_file_reads_as_what_was_trained(
    tiny: LanguageModel, tmp_path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of(tiny, tmp_path, **changes)
    parameters, _ = run(tiny, spec)
    path = tmp_path / "adapter.safetensors"
    write_adapter(path, parameters, tiny.resolved, spec)
    with caplog.at_level(logging.WARNING):
        read = load_memory_model(
            MemorySpec(kind="beacon", model=str(tiny.resolved.folder), adapter=str(path), dtype="float32"), "en"
        )
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (read.window, read.sink, read.origin.ratios) == (32, 1, (4,))
    trained = memory_model(tiny, parameters, spec)
    stream = next(sequences(5)).token_ids.tolist()
    losses = [losses_after(model, stream) for model in (read, trained)]
    torch.testing.assert_close(*losses, atol=0.05, rtol=0)  # the file is in bfloat16


def losses_after(model: Any, stream: list[int]) -> Tensor:
    with torch.inference_mode():
        prefix = model.prefix(model.memorize(stream[:64]))
        return Rows(model.network, prefix, 1, prefix.row_slots(64)).losses(stream[64:])


@pytest.mark.parametrize(("changes", "others"), [({}, ATTENDED), (ATTENDED, {})], ids=["interleave", "attended"])
def test_training_begins_with_an_adapter(
    tiny: LanguageModel, tmp_path: Path, changes: dict[str, Any], others: dict[str, Any]
) -> None:
    spec = spec_of(tiny, tmp_path, **changes)
    parameters, _ = run(tiny, spec)
    path = tmp_path / "adapter.safetensors"
    write_adapter(path, parameters, tiny.resolved, spec)
    begun = trainable(tiny, spec, path)
    for name, tensor in tensors_of(begun).items():
        torch.testing.assert_close(tensor, tensors_of(parameters)[name], atol=5e-3, rtol=1e-2)
        assert tensor.requires_grad and tensor.dtype == torch.float32
    found = spec.placement
    with pytest.raises(MemoryMismatchError, match=rf"of placement {found},.* set placement: {found}"):
        trainable(tiny, spec_of(tiny, tmp_path, **others), path)
    other = spec_of(tiny, tmp_path, **changes)
    resolved = type(tiny.resolved)(**{**vars(tiny.resolved), "digest": "other"})
    write_adapter(path, parameters, resolved, other)
    with pytest.raises(MemoryMismatchError, match="other"):
        trainable(tiny, other, path)
