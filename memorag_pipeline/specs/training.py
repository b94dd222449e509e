"""The training spec: one YAML file that says what adapter is trained, from what, and how.

In:  a YAML file (usually under `dags/training/`).
Out: a frozen `TrainingSpec`.
Wrong: `SpecError` with every problem at once, each with the file, the key path, the value and the fix.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from memorag_pipeline.digests import value_digest
from memorag_pipeline.specs.compute import ComputeSpec
from memorag_pipeline.specs.corpus import read_spec
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.location import Location
from memorag_pipeline.specs.memory import left_out, scaling_needs_context, sink_fits_window
from memorag_pipeline.specs.section import Rule, Section
from memorag_pipeline.specs.store import StoreSpec
from memorag_pipeline.specs.values import (
    Context,
    Cron,
    Distinct,
    Dtype,
    Language,
    Model,
    Name,
    RopeScaling,
    Uri,
    revision_has_use,
)


def some_texts(text: list[str], corpus: str | None) -> str | None:
    return "neither text nor corpus is given" if not text and corpus is None else None


def sequences_fit_batch(batch: int, sequence: int) -> str | None:
    return f"is not a multiple of sequence_tokens ({sequence})" if batch % sequence else None


def all_divide_window(ratios: tuple[int, ...], window: int) -> str | None:
    wrong = [ratio for ratio in ratios if window % ratio]
    return f"has {wrong[0]}, which does not divide the window of {window} tokens" if wrong else None


def sequence_has_windows(sequence: int, window: int) -> str | None:
    return (
        None
        if sequence >= 2 * window
        else f"is shorter than two windows of {window} tokens: nothing would be memorized"
    )


def first_is_evaluated(evaluated: tuple[int, ...], ratios: tuple[int, ...]) -> str | None:
    return None if ratios[0] in evaluated else f"does not have {ratios[0]}, the first that is trained"


def attended_have_keys_and_values(projections: tuple[str, ...] | None, placement: str) -> str | None:
    if placement != "attended" or set(projections or ()) <= {"k", "v"}:
        return None
    return "has more than k and v: attended beacons are tokens, whose queries and outputs are the model's"


def attended_have_no_embedding(start: str, placement: str) -> str | None:
    return "has no use: attended beacons have no embedding" if placement == "attended" and start != "copy" else None


def study_needs_corpus(passages: int, corpus: str | None) -> str | None:
    return "has no use without a corpus" if passages and corpus is None else None


def study_is_local(endpoint: Any) -> str | None:
    return "cannot be used: the self-study asks a model in the process" if endpoint is not None else None


def instructions_are_given(tokens: int, instructions: list[str], passages: int) -> str | None:
    return None if not tokens or instructions or passages else "there are no instructions to train on"


# What a training that is made for a corpus studies: about what two cores do in minutes.
_STUDIED, _STUDIED_TOKENS = 32, 32_768
Placement = Literal["interleave", "attended"]
Projection = Literal["q", "k", "v", "o"]
Start = Literal["copy", "newline", "mean", "eos"]


class TrainingDataSpec(Location):
    """What is trained on. Texts teach the memory to hold a text, instructions what it will be asked for."""

    rules = (
        *Location.rules,
        Rule(("text", "corpus"), some_texts, "give one of them"),
        Rule(("self_study", "corpus"), study_needs_corpus, "name one, or leave it out"),
    )

    text: Annotated[list[Uri], Distinct] = Field(
        default=[], description="Files of texts: JSONL (also .gz, .zst) or Parquet with a column text."
    )
    instructions: Annotated[list[Uri], Distinct] = Field(
        default=[], description="Files of instructions: JSONL (also .gz, .zst) or Parquet."
    )
    contexts: Annotated[list[Uri], Distinct] = Field(
        default=[], description="Files of texts that instructions refer to by context_id."
    )
    corpus: Uri | None = Field(default=None, description="A corpus spec, whose newest version's documents are read.")
    held_out_percent: int = Field(
        default=2, ge=1, le=50, description="Percentage of documents that are never trained on, but used for measuring."
    )
    self_study: int = Field(
        default=0,
        ge=0,
        description="Passages of the corpus from which the generator writes instructions for itself.",
    )


class ScheduleSpec(Section):
    """How much is trained, and how fast. The learning rate rises, then falls to 0."""

    rules = (Rule(("batch_tokens", "sequence_tokens"), sequences_fit_batch, "make it a multiple"),)

    tokens: int = Field(
        default=1_000_000, ge=1, description="Tokens of text to train on; texts are repeated if there are fewer."
    )
    instruction_tokens: int = Field(default=0, ge=0, description="Tokens of instructions to train on after that.")
    sequence_tokens: int = Field(default=1024, ge=64, description="Length of a sequence that texts are packed into.")
    batch_tokens: int = Field(default=4096, ge=64, description="Tokens per step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Highest learning rate.")
    instruction_rate: float = Field(default=5e-4, gt=0, description="Highest learning rate for instructions.")
    warm_up: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of a gradient.")
    seed: int = Field(default=0, description="Seed of the order of the texts and of the ratios.")
    checkpoint_tokens: int = Field(default=200_000, ge=1, description="Tokens between two checkpoints.")


class TrainingEvaluationSpec(Section):
    """What an adapter is measured by, on texts that it was not trained on."""

    questions: Annotated[list[Uri], Distinct] = Field(
        default=[], description="Files of questions with evidence; what is recalled for them is measured."
    )
    questions_of_each: int = Field(default=20, ge=1, description="Questions taken from each file.")
    texts: int = Field(default=40, ge=1, description="Texts whose last tokens are predicted from a memory.")
    ratios: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(2, 4, 8, 16), min_length=1, description="Ratios at which memories are compared."
    )
    needles: bool = Field(default=True, description="Also look for needles in streams of up to 4,096 tokens.")
    gate: float = Field(
        default=0.0, description="Promoted if the gap closed is greater than the current adapter's by this much."
    )


class TrainingSpec(Section):
    """An adapter: beacon parameters for a model, and how they are trained."""

    rules = (
        Rule(("revision", "model"), revision_has_use, "leave it out"),
        Rule(("ratios", "window"), all_divide_window, "use divisors of the window"),
        Rule(("sink", "window"), sink_fits_window, "make it smaller"),
        Rule(("schedule.sequence_tokens", "window"), sequence_has_windows, "make it at least twice as long"),
        Rule(("evaluation.ratios", "ratios"), first_is_evaluated, "add it"),
        Rule(("projections", "placement"), attended_have_keys_and_values, "use k and v, or leave it out"),
        Rule(("start", "placement"), attended_have_no_embedding, "leave it out"),
        Rule(("generation.endpoint",), study_is_local, "leave it out"),
        Rule(("rope_scaling", "context"), scaling_needs_context, "give context, the positions that are needed"),
        Rule(
            ("schedule.instruction_tokens", "data.instructions", "data.self_study"),
            instructions_are_given,
            "give data.instructions or data.self_study, or leave it out",
        ),
    )

    adapter: Name = Field(description="Name of the adapter, of its folder in the store and of its DAG.")
    description: str = Field(default="", description="Shown in Airflow and in the model card.")
    language: Language = Field(default="en", description="Language of the prompts around instructions.")
    store: StoreSpec
    model: Model = Field(
        description="Base model: Hugging Face id, local folder, URI, or package:smollm2-135m-instruct."
    )
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    data: TrainingDataSpec
    begin_with: Uri | None = Field(default=None, description="Adapter whose parameters training starts from.")
    window: int = Field(default=256, ge=16, description="Tokens of a window.")
    ratios: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(4,), min_length=1, description="Raw tokens per beacon; one is drawn for each window."
    )
    sink: int = Field(default=1, ge=0, le=64, description="First slots of a memory that are always kept.")
    context: Context | None = Field(
        default=None, exclude_if=left_out, description="As memory.context of the memories to be made."
    )
    rope_scaling: RopeScaling | None = Field(
        default=None,
        exclude_if=left_out,
        description="As memory.rope_scaling of the memories to be made: an adapter is used with the one it has.",
    )
    placement: Placement = Field(
        default="attended",
        description="Where beacons are. attended: at the tokens that get most attention in a second reading of the"
        " window, with keys and values of their own; interleave: extra slots after every ratio-th token.",
    )
    projections: tuple[Projection, ...] | None = Field(
        default=None,
        description="Projections that beacons have of their own. Default: q, k and v; with attended beacons k and v.",
    )
    rank: int | None = Field(default=None, ge=1, description="Rank of low-rank factors. Default: full matrices.")
    start: Start = Field(
        default="copy",
        description="Embedding of a beacon before training. copy: that of the token before it plus a learned vector;"
        " newline, mean and eos: learned, starting from that embedding.",
    )
    distillation: float = Field(
        default=0.0, ge=0, le=1, description="Share of the loss that is the distance to the model with all its context."
    )
    generation: GenerationSpec = Field(
        default=GenerationSpec(max_new_tokens=48), description="The generator of the self-study. Default: the model."
    )
    first_window: bool = Field(
        default=True,
        description="Tokens of the first window, which see interleaved beacons but no memory, count too.",
    )
    dtype: Dtype = Field(default="float32", description="Number format of the frozen model; beacons train in float32.")
    activation_checkpointing: bool = Field(default=False, description="Compute layers twice to save memory.")
    schedule: ScheduleSpec = ScheduleSpec()
    evaluation: TrainingEvaluationSpec = TrainingEvaluationSpec()
    cron: Cron | None = Field(default=None, description="Cron expression of the training DAG. Default: only by hand.")
    compute: ComputeSpec = ComputeSpec()

    @property
    def own_projections(self) -> tuple[Projection, ...]:
        """The projections that beacons own."""
        return self.projections or (("k", "v") if self.placement == "attended" else ("q", "k", "v"))

    def content(self) -> dict[str, Any]:
        """What decides the adapter: all but where and when it is made, and what it is called."""
        elsewhere = {"adapter", "description", "store", "evaluation", "cron", "compute"}
        content = self.model_dump(mode="json", exclude=elsewhere)
        content["generation"] = self.generation.content()
        for name in ("storage_options", "connection_id"):
            content["data"].pop(name, None)
        return content

    def fingerprint(self) -> str:
        """Digest of `content`."""
        return value_digest(self.content())


def read_training_spec(path: str | Path) -> TrainingSpec:
    """Read and check a training spec. Raises SpecError with all problems."""
    from memorag_pipeline.specs.reader import read

    return read(Path(path), TrainingSpec)


def spec_for_corpus(path: str | Path) -> TrainingSpec:
    """A training on the documents of a corpus, for its own memory model. Raises SpecError."""
    corpus = read_spec(path)
    form = {name: getattr(corpus.memory, name) for name in ("window", "sink", "context", "rope_scaling")}
    generator = {"model", "revision"} if corpus.generation.endpoint is None else set[str]()
    return TrainingSpec.model_validate(
        {
            "adapter": f"{corpus.corpus}-adapter",
            "description": f"Memory for the corpus {corpus.corpus}.",
            "language": corpus.language,
            "store": corpus.store.model_dump(),
            "model": corpus.memory.model,
            "revision": corpus.memory.revision,
            "data": {"corpus": str(Path(path).resolve()), "self_study": _STUDIED, "held_out_percent": 10},
            "schedule": {"instruction_tokens": _STUDIED_TOKENS},
            "generation": {"max_new_tokens": 48, **corpus.generation.model_dump(include=generator)},
            "dtype": "float32",
            "compute": corpus.compute.model_dump(),
            **{name: value for name, value in form.items() if value is not None},
        }
    )
