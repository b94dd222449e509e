"""The places that a spec names, as far as they can be checked without connecting: schemes and local files.

In:  a parsed spec, and its file's name for messages.
Out: problems: a scheme that nothing here can open, a local file of questions that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
from fsspec.core import split_protocol

from memorag_pipeline.errors import SpecProblem, StorageError
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage.objects import require_backend

_INSTALL = "install it, or use a place such as s3://bucket/folder or a local path"


def place_problems(spec: CorpusSpec, file: str) -> Iterator[SpecProblem]:
    """Source and store on a scheme that has no driver here."""
    try:
        require_backend(spec.store.uri)
    except StorageError as error:
        yield SpecProblem(file, "store.uri", "", str(error))
    for number, uri in enumerate(spec.source.uris):
        yield from _driver_problems(file, f"source.uris.{number}", uri)


def question_problems(spec: CorpusSpec, file: str) -> Iterator[SpecProblem]:
    """Questions on such a scheme, or in a local file that is not on this machine; only who asks them needs them."""
    for key, uri in _questions(spec):
        yield from _driver_problems(file, key, uri)
        if split_protocol(uri)[0] in (None, "file", "local") and not Path(uri.removeprefix("file://")).is_file():
            fix = "write it, or correct the path"
            yield SpecProblem(file, key, repr(uri), "there is no such file on this machine", fix)


def _questions(spec: CorpusSpec) -> Iterator[tuple[str, str]]:
    for name, job in spec.jobs.items():
        if job.questions is not None and job.questions.uri is not None:
            yield f"jobs.{name}.questions.uri", job.questions.uri
    if spec.evaluation is not None:
        yield "evaluation.questions.uri", spec.evaluation.questions.uri


def _driver_problems(file: str, key: str, uri: str) -> Iterator[SpecProblem]:
    if problem := _driver_problem(uri):
        yield SpecProblem(file, key, repr(uri), problem, _INSTALL)


def _driver_problem(uri: str) -> str | None:
    """Why fsspec cannot open a URI here; the file system itself is not opened."""
    protocol = (split_protocol(uri)[0] or "file").partition("::")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        return f"is on {protocol}://, whose driver is not installed here ({error})"
    except ValueError:
        return f"is on {protocol}://, which fsspec does not know"
    return None
