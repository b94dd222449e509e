"""Commands that answer and find: answer (a job of a spec), ask (one question), search (passages alone).

In:  SPEC and the name of a job, or TARGET and a question or query.
Out: a summary of what was done, the answer with its evidence, or passages; with --json the same as data.
Wrong: what a stage raises, with its exit code.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from memorag_pipeline.amounts import counts_text
from memorag_pipeline.cli.arguments import (
    SpecArgument,
    TargetArgument,
    TrustModels,
    VersionOption,
    generation_of,
    opened_version,
    pipeline_of,
    version_of,
    versions_of,
)
from memorag_pipeline.cli.output import (
    Json,
    Verbose,
    print_json,
    print_passages,
    print_stages,
    say,
    working,
)
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.specs.answer_kinds import AnswerMode, ClueKind

if TYPE_CHECKING:
    from memorag_pipeline.jobs.answers.answer import Answer
    from memorag_pipeline.runner import AnswerResult, ExportedPrompts


class _Clue(StrEnum):
    """Kinds of clues, as the command line can take several of them."""

    spans = "spans"
    surrogates = "surrogates"
    draft = "draft"


def answer(
    spec: SpecArgument,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of a job in the spec.")],
    version: VersionOption = None,
    versions: Annotated[
        str | None,
        typer.Option("--versions", metavar="FROM-TO", help="Backfill: all versions of a range that are not retired."),
    ] = None,
    export_batch: Annotated[
        Path | None,
        typer.Option(
            "--export-batch",
            metavar="FILE",
            help="Write the prompts as OpenAI batch lines, for `vllm run-batch` or another cluster; load nothing.",
        ),
    ] = None,
    import_results: Annotated[
        Path | None,
        typer.Option(
            "--import-results",
            metavar="FILE",
            help="Take the replies from the results of an exported batch instead of asking the endpoint.",
        ),
    ] = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run a job's questions over a version, or a range of them, and load the answers into its warehouse."""
    with working(verbose):
        from memorag_pipeline import runner

        pipeline = pipeline_of(spec)
        given = {"--versions": versions, "--export-batch": export_batch, "--import-results": import_results}
        several = [name for name, value in given.items() if value is not None]
        if version is not None and versions is not None:
            raise typer.BadParameter("give --version or --versions, not both")
        if len(several) > 1:
            raise typer.BadParameter(f"give only one of {' and '.join(several)}")
        if import_results is not None and not import_results.is_file():
            raise QuestionError(f"{import_results}: no such file of results")
        numbers: list[int | None] = [None if version is None else version_of(pipeline.store, version)]
        if versions is not None:
            numbers = [*versions_of(pipeline.store, versions)]
        if export_batch is not None:
            exported = runner.export_prompts(pipeline, job, export_batch, numbers[0])
        else:
            results = [runner.answer(pipeline, job, number, import_results) for number in numbers]
    if export_batch is not None:
        _say_exported(pipeline.spec.corpus, job, exported, json_output)
        return
    if json_output:
        print_json(results if versions is not None else results[0])
        return
    for result in results:
        print_stages(f"Job {job} of {pipeline.spec.corpus}", result)
        say(f"[bold green]{result.rows} rows[/] over version {result.version} are in {result.warehouse}")
        if result.export is not None:
            say(f"file: {escape(result.export)}")
        say(_told(result))


def _say_exported(corpus: str, job: str, exported: ExportedPrompts, json_output: bool) -> None:
    if json_output:
        print_json(exported)
        return
    print_stages(f"Prompts of job {job} of {corpus}", exported)
    say(f"[bold green]{exported.prompts:,} prompts[/] over version {exported.version} are in {escape(exported.path)}")
    say(f"Put the results back with: memorag answer SPEC {job} --version {exported.version} --import-results RESULTS")


def _told(result: AnswerResult) -> str:
    """How the questions ended, and how many of them were not asked, in a line."""
    counts = dict(result.counts["load"])
    rows, carried = counts.pop("rows"), counts.pop("carried_over", 0)
    text = f"{rows:,} question{'' if rows == 1 else 's'}: {counts_text(counts) or 'none'}"
    return f"{text}; {rows - carried:,} asked, {carried:,} carried over from an earlier version" if carried else text


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

    If TARGET is a spec, its generator writes the answer, otherwise the memory model.
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
    if found.cut:
        say("[yellow]cut: it reached generation.max_new_tokens[/]\n")
    if mode == "memory_only":
        say(f"from the memory of shard {found.shard_id}, version {opened.number} of {opened.uri}")
        return
    _print_passages(found, f"version {opened.number} of {opened.uri}")


def search(
    target: TargetArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, in quotes.")],
    version: VersionOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many passages.")] = 5,
    trust_models: TrustModels = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the passages of a version that are nearest to a text, best first; no memory and no generator is asked."""
    with working(verbose):
        opened = opened_version(target, version, trust_models)
        found = opened.search(query, k)
    if json_output:
        print_json(found)
        return
    print_passages(f"Version {opened.number} of {opened.uri}", list(enumerate(found, 1)))


def _print_passages(found: Answer, where: str) -> None:
    """The passages that the answer uses, then the others that were offered; by their numbers in the answer."""
    numbered = list(enumerate(found.evidence, 1))
    known = {"markers": "as the answer says", "overlap": "by their words", None: ""}[found.cited_by]
    for title, passages in (
        (f"Evidence used, {known}, {where}", [each for each in numbered if each[0] in found.used]),
        (f"Offered, {where}", [each for each in numbered if each[0] not in found.used]),
    ):
        if passages:
            print_passages(title, passages)
