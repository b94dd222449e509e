"""Commands that work from a spec: validate, schema, refresh, answer, ask.

In:  SPEC, and the name of a job or a question.
Out: a summary of what was done, or the answer; with --json the same as data.
Wrong: every problem of a spec at once (exit code 3); what a stage raises, with its exit code.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from memorag_pipeline.cli_screen import Json, Verbose, counts_text, print_error, print_json, print_table, say, working
from memorag_pipeline.cli_target import (
    SpecArgument,
    TargetArgument,
    TrustModels,
    VersionOption,
    examine_spec,
    generation_of,
    opened_version,
    pipeline_of,
    version_of,
    versions_of,
)
from memorag_pipeline.errors import QuestionError, SpecError
from memorag_pipeline.spec_values import AnswerMode, ClueKind

if TYPE_CHECKING:
    from memorag_pipeline.jobs.answer import Answer
    from memorag_pipeline.runner import AnswerResult, RefreshResult

_SHOWN_OF_A_PASSAGE = 200


class _Clue(StrEnum):
    """Kinds of clues, as the command line can take several of them."""

    spans = "spans"
    surrogates = "surrogates"
    draft = "draft"


def validate(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="Spec files.")],
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check spec files and print everything that is wrong with them."""
    with working(verbose):
        problems = {path: examine_spec(path)[1] for path in specs}
    if json_output:
        print_json({str(path): found for path, found in problems.items()})
    for path, found in problems.items():
        if json_output:
            continue
        if found:
            print_error(SpecError(found))
        else:
            say(f"[green]{path} is right[/]")
    if any(problems.values()):
        raise typer.Exit(SpecError.exit_code)


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/corpus-spec.md.")] = False,
) -> None:
    """Print the JSON schema of a spec, for editors."""
    if markdown:
        from memorag_pipeline import spec_reference

        typer.echo(spec_reference.markdown(), nl=False)
    else:
        from memorag_pipeline.spec import json_schema

        print_json(json_schema())


def refresh(
    spec: SpecArgument,
    documents: Annotated[
        str | None,
        typer.Option("--documents", metavar="GLOB", help="Look at the URIs that match alone; others stay as they are."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Read all of the newest version and make anew what is damaged.")
    ] = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Bring a corpus up to date and publish a version, if anything changed."""
    with working(verbose):
        from memorag_pipeline import runner

        pipeline = pipeline_of(spec)
        result = runner.refresh(pipeline, f"cli-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}", documents, force)
    if json_output:
        print_json(result)
        return
    print_stages(f"Refresh of {pipeline.spec.corpus}", result)
    if result.created:
        say(f"[bold green]version {result.version} is published[/] at {result.uri}")
    else:
        say(f"nothing changed; version {result.version} stays the newest at {result.uri}")
    for note in result.notes:
        say(f"[bold yellow]{escape(note)}[/]")


def answer(
    spec: SpecArgument,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of a job in the spec.")],
    version: VersionOption = None,
    versions: Annotated[
        str | None,
        typer.Option("--versions", metavar="FROM-TO", help="Back-fill: all versions of a range that are not retired."),
    ] = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run a job's questions over a version, or a range of them, and load the answers into its warehouse."""
    with working(verbose):
        from memorag_pipeline import runner

        pipeline = pipeline_of(spec)
        if version is not None and versions is not None:
            raise typer.BadParameter("give --version or --versions, not both")
        numbers: list[int | None] = [None if version is None else version_of(pipeline.store, version)]
        if versions is not None:
            numbers = [*versions_of(pipeline.store, versions)]
        results = [runner.answer(pipeline, job, number) for number in numbers]
    if json_output:
        print_json(results if versions is not None else results[0])
        return
    for result in results:
        print_stages(f"Job {job} of {pipeline.spec.corpus}", result)
        say(f"[bold green]{result.rows} rows[/] over version {result.version} are in {result.warehouse}")


def ask(
    target: TargetArgument,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question, in quotes.")],
    version: VersionOption = None,
    mode: Annotated[
        AnswerMode, typer.Option("--mode", help="memorag, memory_only (no evidence) or retrieval_only (no clues).")
    ] = "memorag",
    clues: Annotated[
        list[_Clue] | None, typer.Option("--clues", help="What is recalled; give it once for each kind.")
    ] = None,
    offer_draft: Annotated[
        bool, typer.Option("--offer-draft", help="Offer the recalled draft to the generator as a possible answer.")
    ] = False,
    trust_models: TrustModels = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Answer one question from a version, with the evidence.

    With a spec as TARGET its generator writes the answer, else the memory model.
    """
    kinds: list[ClueKind] = [kind.value for kind in clues or (_Clue.spans, _Clue.surrogates)]
    if offer_draft and "draft" not in kinds:
        kinds = [*kinds, "draft"]
    with working(verbose):
        opened = opened_version(target, version, trust_models)
        (found,) = opened.answer([question], mode, kinds, offer_draft, generation_of(target))
    if json_output:
        print_json(found)
    if found.status == "error":
        raise QuestionError(found.error)
    if json_output:
        return
    say(
        f"[bold]{escape(found.answer)}[/]\n" if found.answer else f"no answer: {escape(found.error or 'it is empty')}\n"
    )
    if mode == "memory_only":
        say(f"from the memory of shard {found.shard_id}, version {opened.number} of {opened.uri}")
        return
    _print_passages(found, f"version {opened.number} of {opened.uri}")


def _print_passages(found: Answer, where: str) -> None:
    """The passages that the answer rests on, then the others that were offered; by their numbers in the answer."""
    numbered = list(enumerate(found.evidence, 1))
    known = {"markers": "as the answer says", "overlap": "by their words", None: ""}[found.cited_by]
    for title, passages in (
        (f"Evidence used, {known}, {where}", [each for each in numbered if each[0] in found.used]),
        (f"Offered, {where}", [each for each in numbered if each[0] not in found.used]),
    ):
        rows = [
            [
                number,
                passage.uri.rpartition("/")[2],
                f"{passage.start}-{passage.end}",
                f"{passage.score:.2f}",
                start_of(passage.text),
            ]
            for number, passage in passages
        ]
        if rows:
            print_table(title, ["number", "document", "characters", "score", "text"], rows)


def print_stages(title: str, result: RefreshResult | AnswerResult) -> None:
    """A table of what each stage counted, and its seconds."""
    rows: list[list[Any]] = [
        [stage, counts_text(counts) or "nothing to do", result.seconds[stage]]
        for stage, counts in result.counts.items()
    ]
    print_table(title, ["stage", "counts", "seconds"], rows)


def start_of(text: str) -> str:
    """The start of a passage, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_OF_A_PASSAGE else f"{line[: _SHOWN_OF_A_PASSAGE - 1]}…"
