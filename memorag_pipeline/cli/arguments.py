"""The objects that the arguments of a command name: a spec file, a published corpus, a version or a channel.

In:  SPEC, TARGET and VERSION as given on the command line.
Out: a `Pipeline`, a `CorpusStore`, a version number.
Wrong: `SpecError` with all problems of a spec, `NotFoundError` for a version or channel that does not exist.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memorag_pipeline.errors import SpecError, SpecProblem

if TYPE_CHECKING:
    from memorag_pipeline.pipeline import Pipeline
    from memorag_pipeline.specs.corpus import CorpusSpec
    from memorag_pipeline.specs.generation import GenerationSpec
    from memorag_pipeline.specs.reader import Examined
    from memorag_pipeline.storage import CorpusStore
    from memorag_pipeline.version import Version


SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="Spec file of the corpus.")]
TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help="Spec file, or root of a published corpus.")]
VersionArgument = Annotated[
    str | None, typer.Argument(metavar="VERSION", help="Number or channel; the newest version by default.")
]
VersionOption = Annotated[
    str | None, typer.Option("--version", metavar="VERSION", help="Number or channel; the newest version by default.")
]

TrustModels = Annotated[
    bool,
    typer.Option("--trust-models", help="Open models that the version names by path or URL; a SPEC's may always be."),
]

# Sections that the checks against models and installed packages rest on.
_CHECKED = ("chunking", "sharding", "memory", "embedding", "index", "retrieval", "generation", "prompts", "jobs")


def examine_spec(path: Path, questions: bool = False) -> tuple[Examined[CorpusSpec] | None, list[SpecProblem]]:
    """A spec file as far as it can be read, and all its problems, those with models and packages included.

    `questions`: also problems with the places of questions, which only a job or a gate needs.
    """
    from memorag_pipeline.preflight import check, question_problems
    from memorag_pipeline.specs.corpus import CorpusSpec
    from memorag_pipeline.specs.reader import examine

    try:
        examined = examine(path, CorpusSpec)
    except SpecError as error:
        return None, list(error.problems)
    problems = list(examined.problems)
    if not any(key.partition(".")[0] in _CHECKED for key in examined.broken):
        found = check(examined.spec, str(path))
        if questions and not any(key.partition(".")[0] == "evaluation" for key in examined.broken):
            found += question_problems(examined.spec, str(path))
        problems += [replace(item, file=str(path), line=examined.file.line_of(item.key)) for item in found]
    return examined, problems


def pipeline_of(path: Path) -> Pipeline:
    """The pipeline of a spec file, checked like in `memorag validate`."""
    from memorag_pipeline.pipeline import Pipeline

    examined, problems = examine_spec(path)
    if examined is None or problems:
        raise SpecError(problems)
    return Pipeline(examined.spec)


def store_of(target: str) -> CorpusStore:
    """The store of a spec file's corpus, or the one at a root URI."""
    if is_spec_file(target):
        from memorag_pipeline.pipeline import Pipeline
        from memorag_pipeline.specs.corpus import read_spec

        return Pipeline(read_spec(target)).store
    from memorag_pipeline.storage import CorpusStore

    return CorpusStore(target)


def is_spec_file(target: str) -> bool:
    """Whether TARGET is a spec file and not the root of a corpus."""
    from memorag_pipeline.specs.file import SUFFIXES

    return target.endswith(SUFFIXES)


def generation_of(target: str) -> GenerationSpec | None:
    """The generator that a spec names; None if TARGET is the root of a corpus, which names none."""
    if not is_spec_file(target):
        return None
    from memorag_pipeline.specs.corpus import read_spec

    return read_spec(target).generation


def opened_version(target: str, version: str | None, trust_models: bool) -> Version:
    """A version of TARGET, opened: what VERSION names, or the newest."""
    from memorag_pipeline.version import Version

    store = store_of(target)
    # Whoever wrote the spec chose the store; what is brought into it from elsewhere is looked at by `memorag import`.
    return Version(store, version_of(store, version), trust_models or is_spec_file(target), prefetch=False)


def version_of(store: CorpusStore, version: str | None) -> int:
    """The number of VERSION: itself, the one that a channel points to, or the newest."""
    return store.number(version)


def versions_of(store: CorpusStore, versions: str) -> list[int]:
    """The numbers in FROM-TO that are not retired; NotFoundError when there is none."""
    first, dash, last = versions.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        raise typer.BadParameter(f"{versions!r} is not a range of versions, such as 3-7")
    return store.versions.retained_between(int(first), int(last))
