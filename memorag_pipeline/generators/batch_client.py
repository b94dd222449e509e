"""The calls of OpenAI's Batch API: files and batches, at OpenAI, on Azure, or any server that has the same.

In:  a file of request lines and the name under which its batch is known; ids of batches.
Out: the id of the batch with that name, made if there is none; states; files of results.
Wrong: a key, a model or an API that is refused: `EndpointRefusedError`; a server that fails: `EndpointError`.

The answer to a submit may be lost after the server has taken it. So a batch carries its name as metadata, is looked for
before it is made and after an error, and of two with one name, made by two processes at once, both keep the older.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorag_pipeline.errors import EndpointError, EndpointRefusedError
from memorag_pipeline.generators.endpoint_client import open_batch_client, read_key
from memorag_pipeline.generators.endpoint_failures import failure_of
from memorag_pipeline.specs.generation import ENDPOINTS, GenerationSpec

logger = logging.getLogger(__name__)

_NAME = "memorag_batch"
_MARGIN = 86_400  # seconds that two clocks may differ
_MANY_OLD = 100  # batches in succession after which no younger one is expected
_FILE_SECONDS, _FILE_POLL = 1800, 5  # Azure looks at a file before a batch may use it
_ENDED = {"completed", "failed", "expired", "cancelled"}
_SHOWN, _LONGEST = 3, 300
_DEAD = {"failed", "expired", "cancelled", "cancelling"}


@dataclass(frozen=True)
class BatchState:
    """A batch at the server. `done` of its requests are answered or failed; `why` says what is wrong."""

    id: str
    status: str
    done: int
    files: tuple[str, ...]
    input_file: str | None
    why: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in _ENDED


class BatchClient:
    """One endpoint's batches; the caller closes it."""

    def __init__(self, spec: GenerationSpec) -> None:
        assert spec.endpoint is not None and spec.endpoint.batch is not None
        self._spec, self._endpoint, self._batch = spec, spec.endpoint, spec.endpoint.batch
        self.key = read_key(spec.endpoint)
        self._client = open_batch_client(spec, self.key)

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def submit(self, name: str, lines: Path, since: float, labels: Mapping[str, str]) -> str:
        """The id of the batch `name`: one made since the time `since`, else a new one over the file `lines`."""
        found = self.find(name, since)
        if found is not None:
            return found
        with self._errors("no batch can be sent"), lines.open("rb") as file:
            file_id = self._client.files.create(file=(f"{name[:16]}.jsonl", file), purpose="batch").id
            if not isinstance(file_id, str):
                raise TypeError("no id")
        if ENDPOINTS[self._endpoint.kind].has_versions:
            with self._errors("the file of a batch is not taken"), suppress(RuntimeError):
                self._client.files.wait_for_processing(
                    file_id, poll_interval=_FILE_POLL, max_wait_seconds=_FILE_SECONDS
                )
        self._create(name, file_id, since, labels)
        kept = self.find(name, since)
        if kept is None:
            raise EndpointError(
                f"{self._endpoint.url}: a batch was sent, but the list of batches does not show it; it is looked for"
                " when the job is run again"
            )
        return kept

    def find(self, name: str, since: float) -> str | None:
        """The id of the batch with this name, the oldest that lives; younger ones are cancelled."""
        found: list[Any] = []
        old = 0
        with self._errors("its batches cannot be listed"):
            page = self._client.batches.list(limit=100)
            if not isinstance(getattr(page, "data", None), list):
                raise TypeError("no list")  # else it would count as an empty one
            for batch in page:
                old = old + 1 if batch.created_at < since - _MARGIN else 0
                if old > _MANY_OLD:
                    break
                if not old and (batch.metadata or {}).get(_NAME) == name:
                    found.append(batch)
        # A dead batch counts only if there is no other: what it did answer is taken, the rest asked by a later run. Of
        # two of one second the list has the younger first.
        found.reverse()
        found.sort(key=lambda batch: (batch.status in _DEAD, batch.created_at))
        for batch in found[1:]:
            if batch.status not in _ENDED and batch.status != "cancelling":
                logger.warning("batch %s repeats %s, and is cancelled", batch.id, found[0].id)
                with self._errors("a batch cannot be cancelled"):
                    self._client.batches.cancel(batch.id)
        return found[0].id if found else None

    def state(self, batch_id: str) -> BatchState:
        """How far a batch is."""
        with self._errors(f"the state of batch {batch_id} is unknown", gone=self._gone(batch_id)):
            batch = self._client.batches.retrieve(batch_id)
            counts = batch.request_counts
            errors = (batch.errors.data if batch.errors is not None else None) or []
            why = "; ".join(str(error.message) for error in errors[:_SHOWN] if error.message)
            return BatchState(
                batch_id,
                str(batch.status),
                int(counts.completed or 0) + int(counts.failed or 0) if counts is not None else 0,
                tuple(str(each) for each in (batch.output_file_id, batch.error_file_id) if each),
                batch.input_file_id,
                self.key.struck_out(" ".join(why.split())[:_LONGEST]),
            )

    def download(self, file_id: str, path: Path) -> None:
        """Copy a file of results."""
        with (
            self._errors(f"the results {file_id} cannot be read"),
            self._client.files.with_streaming_response.content(file_id) as response,
        ):
            response.stream_to_file(path)

    def forget(self, state: BatchState) -> None:
        """Delete the files of a batch whose results are taken; one that stays is not worth an error."""
        import openai

        for file_id in filter(None, (*state.files, state.input_file)):
            try:
                self._client.files.delete(file_id)
            except openai.APIError as error:
                logger.info("file %s stays at %s: %s", file_id, self._endpoint.url, type(error).__name__)

    def _create(self, name: str, file_id: str, since: float, labels: Mapping[str, str]) -> None:
        """Make a batch, once: the client may not repeat a request whose answer is lost."""
        import openai

        values: Any = {
            "input_file_id": file_id,
            "endpoint": ENDPOINTS[self._endpoint.kind].batch_path,
            "completion_window": self._batch.window,
            "metadata": {**labels, _NAME: name},
        }
        with self._errors("no batch can be made"):
            try:
                self._client.with_options(max_retries=0).batches.create(**values)
            except (openai.APIConnectionError, openai.InternalServerError, openai.APIResponseValidationError):
                if self.find(name, since) is None:
                    raise
                logger.warning("the answer to a batch was lost; it was found by its name")

    def _gone(self, batch_id: str) -> str:
        return (
            f"{self._endpoint.url} does not know the batch {batch_id}; give the key of the account that sent it. If it"
            " was deleted there, its questions are asked again when the store's record of it has been swept"
        )

    @contextmanager
    def _errors(self, what: str, gone: str | None = None) -> Iterator[None]:
        """Errors of the client as ours."""
        import openai

        try:
            yield
        except openai.APIResponseValidationError as error:
            raise EndpointError(
                f"{self._endpoint.url}: {what}: not an answer of a Batch API ({error.message})"
            ) from None
        except openai.NotFoundError as error:
            raise EndpointRefusedError(
                gone
                or f"{self._endpoint.url}: {what}: {type(error).__name__}; if it has no Batch API, leave out"
                " generation.endpoint.batch, or take its prompts with memorag answer --export-batch"
            ) from None
        except openai.APIError as error:
            failure = failure_of(error, self._spec, self.key)
            kind = EndpointRefusedError if failure.refused or not failure.retryable else EndpointError
            raise kind(f"{what}: {failure.text}") from None
        except (TypeError, AttributeError, ValueError) as error:  # an answer of another shape
            raise self._odd(what, error) from None

    def _odd(self, what: str, error: Exception) -> EndpointError:
        return EndpointError(f"{self._endpoint.url}: {what}: not an answer of a Batch API ({type(error).__name__})")
