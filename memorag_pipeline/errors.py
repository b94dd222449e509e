"""Errors that a user can act on. Everything else is a bug and shows its traceback.

Each message says what is wrong, where (file, key, URI or document), and what to do. Secrets in URIs are removed from
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
    """What may be shown of any error: its class, and for our errors the first line of the message, free of secrets."""
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
    """A spec is valid, but a model that it names is incomplete."""

    exit_code: ClassVar[int] = 4


class SpecError(MemoragError):
    """A spec is refused before any work; `problems` holds all of them at once.

    If all of them concern incomplete models, `exit_code` is that of a `ModelError`.
    """

    exit_code = 3

    def __init__(self, problems: Sequence[SpecProblem]) -> None:
        self.problems = tuple(problems)
        codes = {problem.exit_code for problem in problems}
        self.exit_code = codes.pop() if len(codes) == 1 else SpecError.exit_code
        super().__init__("\n".join(str(problem) for problem in problems))


class NotFoundError(MemoragError):
    """A named version, channel, job, model or source does not exist."""

    exit_code = 4


class RetiredVersionError(NotFoundError):
    """A version was retired: its tombstone says when, by whom and why; its blobs may be gone."""


class EmptyCorpusError(NotFoundError):
    """The source holds no document that matches; publishing it would hide the last good version."""


class ArgumentError(MemoragError, ValueError):
    """A call with arguments that are out of range or incompatible."""

    exit_code = 2


class ModelError(NotFoundError):
    """A model's files are damaged, incomplete, or do not match its configuration; the message names them."""


class StorageError(MemoragError):
    """The object store refused or failed an operation (permission, wrong bucket, no connection)."""

    exit_code = 5


class ObjectNotFoundError(StorageError):
    """A requested key does not exist in the store."""


class ObjectTooLargeError(StorageError):
    """An object is longer than any that the pipeline writes; it was not read."""


class OutsideStoreError(StorageError):
    """An object leads out of its store, such as a symbolic link to another place; it was not followed."""


class UntrustedReferenceError(StorageError):
    """A manifest from elsewhere names a local path or a URL for a model; it was not opened."""


class DiskFullError(StorageError):
    """No space is left on a disk of this machine; the message names the folder."""


class CorruptBlobError(StorageError):
    """A blob is missing, truncated or altered; the message names its role, path and digest."""


class PlanError(MemoragError):
    """A plan or work list is not in the form that a stage reads: it is from another stage, or another release."""

    exit_code = 5


class MemoryMismatchError(MemoragError):
    """A stored memory was made by another model, tokenizer, kind or format version."""

    exit_code = 5


class MemoryConfigError(MemoragError):
    """An unsupported or inconsistent form of memory: ratios, windows, modes of a checkpoint."""

    exit_code = 3


class ContextLengthError(MemoragError):
    """A token stream is longer than the model can attend to."""


class ChunkTooLargeError(MemoragError):
    """The device or the machine has too little memory for the work done at once; a retry does half as much at once."""


class QuestionError(MemoragError):
    """The question file or query cannot be read at all (a single bad question is an error row instead)."""

    exit_code = 6


class WarehouseError(MemoragError):
    """The warehouse refused the load; nothing of it was written."""

    exit_code = 7


class ExportError(MemoragError):
    """A file of a job's rows cannot be written in the chosen format."""

    exit_code = 7


class EndpointError(MemoragError):
    """A generator's endpoint has stopped answering. Its earlier answers are kept."""

    exit_code = 9


class EndpointRefusedError(EndpointError):
    """A generator's endpoint refuses every question: the key, the model, or the request has to be corrected."""


class TrainingError(MemoragError):
    """Training cannot start or continue: no data, a loss that is not finite. The last checkpoint has the progress."""


class GateError(MemoragError):
    """A version does not reach the scores of its gate; it is published all the same."""

    exit_code = 10


class MissingDependencyError(MemoragError):
    """An optional package is needed; the message names the extra to install."""

    exit_code = 8


@contextmanager
def used_by(name: str) -> Iterator[None]:
    """Make errors about what is not there say what needs it: a version names its models itself."""
    try:
        yield
    except NotFoundError as error:
        raise type(error)(f"{name}: {error}") from error


@contextmanager
def named(path: Path, name: str) -> Iterator[None]:
    """Make errors about the file at `path`, such as one in the local cache, say what it is instead of where it is."""
    try:
        yield
    except (MemoryMismatchError, CorruptBlobError) as error:
        if str(path) not in str(error):
            raise
        raise type(error)(str(error).replace(str(path), name)) from error
