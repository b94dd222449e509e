"""Commands that inspect memories: memory inspect, recall.

In:  a memory file; TARGET and questions.
Out: what the file holds, or what the memories recall, as text or with --json as data.
Wrong: a file that is not a memory exits with 5; a question that cannot be asked with 6.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.cli.arguments import TargetArgument, TrustModels, VersionOption, opened_version
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, working
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.specs.answer_kinds import ClueKind

if TYPE_CHECKING:
    from memorag_pipeline.jobs.answers.ask import Recollection
    from memorag_pipeline.memory.format import MemoryHeader


memory = typer.Typer(help="Look into memory files.", no_args_is_help=True)


@dataclass(frozen=True)
class _Memory:
    """What `memorag memory inspect` reports about a file. `open_tokens` are those after the last full window."""

    file: str
    bytes: int
    bytes_per_slot: float
    full_windows: int
    open_tokens: int
    header: MemoryHeader


@memory.command()
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Path or URI of a memory file.")],
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what a memory file holds."""
    with working(verbose):
        found = _inspected(file)
    if json_output:
        print_json(asdict(found))
        return
    say(f"[bold]Memory of kind {found.header.origin.kind}[/] in {escape(found.file)}")
    print_table("", ["fact", "value"], _rows(found))


def recall(
    target: TargetArgument,
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION...", help="Questions, each in quotes.")],
    version: VersionOption = None,
    kind: Annotated[
        ClueKind | None, typer.Option("--kind", help="Recall this kind of clues only; by default spans and surrogates.")
    ] = None,
    trust_models: TrustModels = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the clues that the memories of a version recall for questions."""
    with working(verbose):
        opened = opened_version(target, version, trust_models)
        found = opened.recall(questions, (kind,) if kind else ())
    if json_output:
        print_json(found)
    else:
        for recollection in found:
            _print_recollection(recollection)
    errors = [recollection.error for recollection in found if recollection.error is not None]
    if errors:
        raise QuestionError("; ".join(errors))


def _inspected(file: str) -> _Memory:
    from memorag_pipeline.memory.format import read_header
    from memorag_pipeline.models.references import read_safetensors_header, resolve_file

    path = resolve_file(file)
    header = read_header(path)
    offsets = [
        tensor["data_offsets"]
        for name, tensor in read_safetensors_header(str(path)).items()
        if name.startswith("layers.")
    ]
    return _Memory(
        file=file,
        bytes=path.stat().st_size,
        bytes_per_slot=sum(end - begin for begin, end in offsets) / max(1, header.slots),
        full_windows=header.tokens // header.origin.window,
        open_tokens=header.tokens % header.origin.window,
        header=header,
    )


def _rows(found: _Memory) -> list[tuple[str, str]]:
    """The facts for display, without those that do not apply to the kind of memory."""
    header, origin = found.header, found.header.origin
    windows = Counter(header.window_ratios).items()
    layers, heads, size = header.shape
    ratios = ", ".join("0 (all is kept)" if ratio == 0 else str(ratio) for ratio in origin.ratios)
    still_open = f"{found.open_tokens:,} tokens in an open one" if found.open_tokens else "none open"
    facts = {
        "model": origin.model,
        "model digest": origin.model_digest,
        "tokenizer digest": origin.tokenizer_digest,
        "beacon parameters": origin.beacon_digest,
        "policy": origin.policy,
        "ratios": f"{ratios}, picked by {origin.ratio_mix}" if origin.ratio_mix else ratios if windows else "",
        "window": f"{origin.window:,} tokens",
        "slots of the sink": str(origin.sink) if origin.sink else "",
        "windows": f"{found.full_windows:,} full, {still_open}",
        "windows by ratio": ", ".join(f"{count:,} of ratio {ratio}" for ratio, count in sorted(windows)),
        "tokens": f"{header.tokens:,}",
        "slots": f"{header.slots:,}",
        "shape of a slot": f"{layers} layers, {heads} key/value heads, head size {size}",
        "bytes per slot": f"{found.bytes_per_slot:,.0f}",
        "codec": f"{header.codec}, made in {origin.dtype}",
        "file size": bytes_text(found.bytes),
        "format": str(header.format),
    }
    return [(name, value) for name, value in facts.items() if value]


def _print_recollection(found: Recollection) -> None:
    say(f"\n[bold]{escape(found.question)}[/]")
    if found.error is not None:
        say(f"not asked: {escape(found.error)}")
    elif not found.clues:
        say(f"no clue; asked of {', '.join(found.shard_ids) or 'no shard'}")
    else:
        print_table("", ["shard", "kind", "clue"], [(clue.shard_id, clue.kind, clue.text) for clue in found.clues])
