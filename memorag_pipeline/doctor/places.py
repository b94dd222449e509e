"""The source and the store: listed, and the store written to.

In:  a spec.
Out: a check for each URI of the source, and one for the store.
Wrong: what `Source` and the store raise is what the checks found.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from memorag_pipeline.corpus.source import Source
from memorag_pipeline.doctor.airflow import with_connection
from memorag_pipeline.doctor.findings import Check
from memorag_pipeline.errors import EmptyCorpusError, StorageError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.source import SourceSpec


def place_checks(spec: CorpusSpec) -> Iterator[Check]:
    """The checks of source and store."""
    for number, uri in enumerate(spec.source.uris):
        of_uri = spec.source.model_copy(update={"uris": [uri]})
        look = with_connection(spec.source.connection_id, partial(_source, of_uri))
        yield Check(f"source.uris.{number}", look, StorageError)
    yield Check("store", with_connection(spec.store.connection_id, lambda: _store(spec)), StorageError)


def _source(spec: SourceSpec) -> str:
    (uri,) = spec.uris
    page = Source(spec).first_page()
    if page.whole and not page.matching:
        none = f"none of its {page.objects:,} objects matches source.include and exclude"
        raise EmptyCorpusError(f"{uri}: {none if page.objects else 'holds no object'}; correct the URI or the globs")
    seen = f"{page.objects:,} objects" if page.whole else f"more than {page.objects:,} objects, of which"
    return f"{uri}: {seen}{', ' if page.whole else ' '}{page.matching:,} match" + ("" if page.whole else " so far")


def _store(spec: CorpusSpec) -> str:
    store = Pipeline(spec).store
    newest = store.versions.newest()
    store.intents.rehearse()
    held = "no version yet" if newest is None else f"newest version {newest}"
    return f"{store.uri}: {held}; an object was written, not written a second time, and deleted"
