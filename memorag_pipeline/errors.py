"""Errors that a user can act on. Everything else is a bug and shows its traceback.

Each message says what was wrong, where (file, key, URI or document), and what to do. Secrets in URIs are struck out of
it, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from memorag_pipeline.redaction import redacted


class MemoragError(Exception):
    """Base class of every error that a user can act on; `exit_code` is what the CLI returns for it."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(redacted(arg) if isinstance(arg, str) else arg for arg in args))


def headline(error: BaseException) -> str:
    """What may be told of any error: its kind, and the first line of the message of ours, which hold no secret."""
    kind = type(error).__name__
    return f"{kind}: {error}".split("\n", 1)[0] if isinstance(error, MemoragError) else kind


@dataclass(frozen=True)
class SpecProblem:
    """One thing wrong with a spec: `key` is the dotted path, `fix` says what would be right, `line` counts from 1."""

    exit_code: ClassVar[int] = 3

    file: str
    key: str
    value: str
    problem: str
    fix: str = ""
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        where = f"{place}: {self.key}" if self.key else place
        shown = f" (found {self.value})" if self.value else ""
        fix = f"; {self.fix}" if self.fix else ""
        return redacted(f"{where}: {self.problem}{shown}{fix}")


@dataclass(frozen=True)
class ModelProblem(SpecProblem):
    """A spec is right, but a model that it names is not whole."""

    exit_code: ClassVar[int] = 4


class SpecError(MemoragError):
    """A spec is refused before any work; `problems` holds all of them at once.

    If all are of models that are not whole, `exit_code` is that of a `ModelError`.
    """

    exit_code = 3

    def __init__(self, problems: Sequence[SpecProblem]) -> None:
        self.problems = tuple(problems)
        codes = {problem.exit_code for problem in problems}
        self.exit_code = codes.pop() if len(codes) == 1 else SpecError.exit_code
        super().__init__("\n".join(str(problem) for problem in problems))


class NotFoundError(MemoragError):
    """A version, channel, job, model or source that was named does not exist."""

    exit_code = 4


class RetiredVersionError(NotFoundError):
    """A version was retired: its tombstone says when, by whom and why; its blobs may be gone."""


class EmptyCorpusError(NotFoundError):
    """The source holds no document that matches; publishing it would hide the last good version."""


class ArgumentError(MemoragError, ValueError):
    """A call whose arguments are out of range or do not go together."""

    exit_code = 2


class ModelError(NotFoundError):
    """A model's files are damaged, incomplete, or not those that its configuration asks for; the message names them."""


class StorageError(MemoragError):
    """The object store refused or failed an operation (permission, wrong bucket, no connection)."""

    exit_code = 5


class ObjectNotFoundError(StorageError):
    """An object that was asked for by key is not in the store."""


class ObjectTooLargeError(StorageError):
    """An object is longer than it can be if the pipeline wrote it; it was not read."""


class OutsideStoreError(StorageError):
    """An object is a way out of its store, such as a symbolic link to somewhere else; it was not followed."""


class UntrustedReferenceError(StorageError):
    """A manifest from elsewhere names a local path or a URL for a model; it was not opened."""


class DiskFullError(StorageError):
    """There is no space left on a disk of this machine; the message names the folder that was written to."""


class CorruptBlobError(StorageError):
    """A blob is missing, truncated or altered; the message names its role, path and digest."""


class PlanError(MemoragError):
    """A plan or work list is not of the form that a stage reads: of another stage, or of another release."""

    exit_code = 5


class MemoryMismatchError(MemoragError):
    """A stored memory was made by another model, tokenizer, kind or format version."""

    exit_code = 5


class MemoryConfigError(MemoragError):
    """A form of memory that there is not, or that does not fit together: ratios, windows, modes of a checkpoint."""

    exit_code = 3


class ContextLengthError(MemoragError):
    """A token stream is longer than the model can attend to."""


class ChunkTooLargeError(MemoragError):
    """The device, or the machine, has too little memory for what was worked on at once; a retry takes half of it."""


class QuestionError(MemoragError):
    """The question file or query cannot be read at all (a single bad question is an error row instead)."""

    exit_code = 6


class WarehouseError(MemoragError):
    """The warehouse refused the load; nothing of it was written."""

    exit_code = 7


class EndpointError(MemoragError):
    """A generator's endpoint does not answer any question any more. What it has answered is kept."""

    exit_code = 9


class EndpointRefusedError(EndpointError):
    """A generator's endpoint refuses every question: the key, the model, or what is sent has to be corrected."""


class TrainingError(MemoragError):
    """Training cannot begin or go on: no data, a loss that is no number. What was reached is in the last checkpoint."""


class MissingDependencyError(MemoragError):
    """An optional package is needed for what was asked; the message names the extra to install."""

    exit_code = 8


@contextmanager
def named(path: Path, name: str) -> Iterator[None]:
    """Let errors about the file at `path`, such as one in the local cache, say what it is instead of where it lies."""
    try:
        yield
    except (MemoryMismatchError, CorruptBlobError) as error:
        if str(path) not in str(error):
            raise
        raise type(error)(str(error).replace(str(path), name)) from error
