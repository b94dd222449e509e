"""A whole training of a small model: trained, measured, published, promoted; by the runner and by the command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from memorag_pipeline.cli.app import app
from memorag_pipeline.errors import NotFoundError, SpecError
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.models.references import resolve_file
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.training import TrainingSpec, read_training_spec
from memorag_pipeline.training import train as train_stage
from memorag_pipeline.training.plans import TrainingPlan
from memorag_pipeline.training.prepare import prepare
from memorag_pipeline.training.register import promote
from memorag_pipeline.training.runner import TrainResult, train
from memorag_pipeline.training.training import Training
from tests.training.conftest import values_of

MakeTraining = Callable[..., Training]


@pytest.fixture(scope="module")
def trained(
    tiny: LanguageModel, training_texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Training, TrainResult]:
    """One finished training, for all tests that only read it, or continue from it in a copy of its store."""
    store = tmp_path_factory.mktemp("trained") / "store"
    training = Training(TrainingSpec.model_validate(values_of(tiny, training_texts, store)))
    result = train(training, "run 1", "somebody")
    assert result is not None
    return training, result


@pytest.fixture
def go_on(trained: tuple[Training, TrainResult], tmp_path: Path) -> None:
    """The store of this test's own trainings is a copy of that one's."""
    shutil.copytree(trained[0].spec.store.uri, tmp_path / "store")


@pytest.fixture
def make(training_values: dict[str, Any]) -> MakeTraining:
    return lambda **changes: Training(TrainingSpec.model_validate(training_values | changes))


def test_an_adapter_is_trained_measured_published_and_promoted(
    trained: tuple[Training, TrainResult], tiny: LanguageModel
) -> None:
    training, result = trained
    assert (result.version, result.created, result.promoted) == (1, True, True)
    assert result.gaps.keys() == {"beacon", "uniform", "recent", "attention"}
    assert result.gaps["beacon"].keys() == {4, 8}
    manifest = training.store.versions.manifest(1)
    assert {blob.path for blob in manifest.blobs} == {
        "adapter.safetensors",
        "history.json",
        "evaluation.json",
        "report.html",
        "MODEL_CARD.md",
    }
    history, card, report = (
        training.store.blobs.get_bytes(manifest.of_role(role)[0].ref).decode() for role in ("history", "card", "report")
    )
    curve = json.loads(history)["curve"]
    assert [point["tokens"] for point in curve] == [0, 1024, 2048]
    assert all(point["gap"] is not None for point in curve)
    assert json.loads(history)["skipped"] == {"held out for the evaluation": 2}
    assert f"| beacon | 4 | {result.gaps['beacon'][4]:.1%} |" in card
    assert "<svg" in report and "tiny-adapter" in report
    assert training.store.channels.version("production") == 1
    for version in ("1", "production"):
        adapter = f"{result.uri}@{version}"
        memory = load_memory_model(
            MemorySpec(kind="beacon", model=str(tiny.resolved.folder), adapter=adapter, dtype="float32"), "en"
        )
        assert memory.window == 32
    with pytest.raises(NotFoundError, match="has no version 9"):
        resolve_file(f"{result.uri}@9")
    with pytest.raises(NotFoundError, match="has no channel 'staging'"):
        resolve_file(f"{result.uri}@staging")


@pytest.mark.usefixtures("go_on")
def test_the_same_again_is_neither_trained_nor_published(make: MakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_stage, "_trained", None)
    again = train(make(description="Said in other words."), "run 2", "somebody")
    assert (again.version, again.created, again.promoted) == (1, False, False)
    assert again.why == "production points to it already"


def test_fewer_texts_than_wanted_are_told_and_needles_have_room(
    make: MakeTraining, caplog: pytest.LogCaptureFixture
) -> None:
    result = train(make(evaluation={"texts": 50, "ratios": [4]}), "run 1", "somebody")
    assert result.version == 1
    told = [message for message in caplog.messages if "held-out texts" in message]
    assert "tiny-adapter: measured on 2 held-out texts, not on 50" in told[0]
    assert "no needles in streams of 1,024 tokens" in told[1] and "the model's context 640" in told[1]


@pytest.mark.usefixtures("go_on")
def test_an_adapter_that_is_no_better_is_published_but_not_promoted(make: MakeTraining) -> None:
    evaluation = {"texts": 2, "ratios": [4, 8], "needles": False, "gate": 1e9}
    schedule = {"tokens": 1024, "sequence_tokens": 128, "batch_tokens": 512}
    second = train(make(evaluation=evaluation, schedule=schedule), "run 2", "somebody")
    assert (second.version, second.created, second.promoted) == (2, True, False)
    assert "(gate 100000000000.0%)" in second.why
    training = make()
    assert training.store.channels.version("production") == 1
    better = promote(make(evaluation=evaluation | {"gate": -1e9}), 2, "somebody")
    assert better["promoted"]
    assert [record.version for record in training.store.channels.history("production")] == [1, 2]


def test_a_killed_training_goes_on_from_its_checkpoint(
    trained: tuple[Training, TrainResult], make: MakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    from memorag_pipeline.training import trainer

    undisturbed, _ = trained
    step, steps = trainer.Trainer._step, list[int]()

    def killed(self: Any, stage: Any, number: int, *arguments: Any) -> float:
        steps.append(number)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step(self, stage, number, *arguments)

    monkeypatch.setattr(trainer.Trainer, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(make(), "run 2", "somebody")
    train(make(), "run 3", "somebody")
    assert steps == [0, 1, 2, 3, 2, 3]  # a checkpoint is after two steps
    digests = {training.store.versions.manifest(1).of_role("adapter")[0].digest for training in (make(), undisturbed)}
    assert len(digests) == 1


def test_what_is_not_there_is_refused_before_any_work(make: MakeTraining, training_texts: Path) -> None:
    for changes in ({"data": {"text": [f"{training_texts}.missing"]}}, {"begin_with": f"{training_texts}.missing"}):
        with pytest.raises(NotFoundError, match="missing"):
            prepare(make(**changes))


def test_other_data_is_another_run(make: MakeTraining, training_texts: Path, tmp_path: Path) -> None:
    training, copy = make(), tmp_path / "copy.jsonl"
    copy.write_bytes(training_texts.read_bytes())
    plans = [
        one.read_work(prepare(one)["plan"], TrainingPlan).fingerprint
        for one in (training, make(), make(data={"text": [str(copy)]}), make(window=64), make(cron="@daily"))
    ]
    assert plans[0] == plans[1] == plans[4]
    assert len(set(plans)) == 3


def test_the_command_trains(training_values: dict[str, Any], tmp_path: Path) -> None:
    spec, out = tmp_path / "training.yaml", tmp_path / "adapter.safetensors"
    spec.write_text(yaml.safe_dump(training_values), encoding="utf-8")
    report = tmp_path / "report.html"
    arguments = ["train", str(spec), "--tokens", "1024", "--texts", "1", "--out", str(out), "--report", str(report)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "version 1 is published" in result.stdout and "promoted" in result.stdout
    assert "closes, on 1 held-out text" in " ".join(result.stdout.split()) and "there are no" not in result.stdout
    assert out.stat().st_size > 0 and "<svg" in report.read_text(encoding="utf-8")
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(again.stdout)["created"] is False
    few = CliRunner().invoke(app, [*arguments[:4], "--texts", "9"])
    assert "there are no 9 held-out texts: add some, or raise data.held_out_percent" in " ".join(few.stdout.split())
    nowhere = CliRunner().invoke(app, ["train", str(spec), "--out", str(tmp_path / "no" / "adapter")])
    assert nowhere.exit_code == 4


def test_two_processes_train_what_one_does(
    trained: tuple[Training, TrainResult], training_values: dict[str, Any], tmp_path: Path
) -> None:
    alone, _ = trained
    spec, out = tmp_path / "training.yaml", tmp_path / "adapter.safetensors"
    # What is measured of an adapter does not change it.
    values = training_values | {"store": {"uri": str(tmp_path / "shared")}}
    values |= {"evaluation": {"texts": 1, "ratios": [4], "needles": False}}
    spec.write_text(yaml.safe_dump(values), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    memorag = Path(sys.executable).with_name("memorag")
    done = subprocess.run(
        [*launch, str(memorag), "train", str(spec), f"--out={out}", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == 1
    one, two = load_file(resolve_file(f"{alone.store.uri}@1")), load_file(out)
    assert one.keys() == two.keys()
    # Gradients are summed in another order, and the compared values were rounded to bfloat16.
    assert all(torch.allclose(one[name].float(), two[name].float(), atol=1e-3, rtol=1e-2) for name in one)


WRONG = {
    "no data": ({"data": {}}, "data.text: neither text nor corpus is given"),
    "ratio": ({"ratios": [5]}, "ratios: has 5, which does not divide the window of 32 tokens"),
    "sequence": ({"schedule": {"sequence_tokens": 64}, "window": 64}, "is shorter than two windows of 64 tokens"),
    "batch": ({"schedule": {"sequence_tokens": 96, "batch_tokens": 100}}, "is not a multiple of sequence_tokens (96)"),
    "not evaluated": ({"evaluation": {"ratios": [2]}}, "evaluation.ratios: does not have 4"),
    "no instructions": ({"schedule": {"instruction_tokens": 512}}, "there are no instructions to train on"),
    "study of nothing": ({"data": {"text": ["a"], "self_study": 4}}, "data.self_study: has no use without a corpus"),
    "queries of tokens": ({"projections": ["q", "k"]}, "projections: has more than k and v"),
    "embedding of tokens": ({"start": "eos"}, "start: has no use: attended beacons have no embedding"),
    "unknown key": ({"windows": 64}, "windows: is not a key of the spec"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_spec_is_refused(training_values: dict[str, Any], tmp_path: Path, name: str) -> None:
    changes, message = WRONG[name]
    path = tmp_path / "training.yaml"
    path.write_text(yaml.safe_dump(training_values | changes), encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        read_training_spec(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_paths_of_a_spec_are_meant_from_its_folder(training_values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "training.yaml"
    given = training_values | {
        "data": {"text": ["texts.jsonl"], "corpus": "../corpus.yaml"},
        "begin_with": "first.safetensors",
    }
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    spec = read_training_spec(path)
    assert spec.data.text == [str(tmp_path / "texts.jsonl")]
    assert spec.data.corpus == str(tmp_path.parent / "corpus.yaml")
    assert spec.begin_with == str(tmp_path / "first.safetensors")
