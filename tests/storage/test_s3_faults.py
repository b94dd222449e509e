"""Publishing over a connection that breaks at the worst moment."""

from __future__ import annotations

from memorag_pipeline.storage import CorpusStore, ObjectStore
from tests.fixtures.s3 import S3Server
from tests.storage.conftest import Root, manifest_of
from tests.storage.faulty_proxy import answering, losing_the_answer_to

CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>Another write is under way.</Message></Error>"


def test_a_lost_answer_to_the_commit_is_read_back(s3_server: S3Server, s3_store: Root) -> None:
    with losing_the_answer_to(b"/versions/00000000000000000001.json HTTP", s3_server.endpoint) as proxy:
        store = CorpusStore(s3_store[0], {**s3_server.options(), "endpoint_url": proxy.endpoint})
        manifest = manifest_of(store, documents=b"text")
        published = store.versions.publish(manifest, "run-1")
        assert proxy.struck
    assert (published.version, published.created) == (1, True)
    direct = CorpusStore(*s3_store)
    assert list(direct.versions.numbers()) == [1]
    assert direct.versions.record(1).run_id == "run-1"


def test_a_lost_answer_to_a_promotion_makes_one_record(s3_server: S3Server, s3_store: Root) -> None:
    direct = CorpusStore(*s3_store)
    direct.versions.publish(manifest_of(direct, documents=b"text"), "run-1")
    with losing_the_answer_to(b"PUT", s3_server.endpoint) as proxy:
        store = CorpusStore(s3_store[0], {**s3_server.options(), "endpoint_url": proxy.endpoint})
        store.channels.promote("production", 1, by="me", why="good")
        assert proxy.struck
    assert [record.version for record in direct.channels.history("production")] == [1]


def test_a_conflict_is_tried_again(s3_server: S3Server, s3_store: Root) -> None:
    """S3 answers 409 to some writes that race, and does not say who won."""
    answer = b"HTTP/1.1 409 Conflict\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(CONFLICT), CONFLICT)
    with answering(answer, b"PUT", s3_server.endpoint) as proxy:
        objects = ObjectStore(s3_store[0], {**s3_server.options(), "endpoint_url": proxy.endpoint})
        assert objects.create("a/b", b"mine")
        assert proxy.struck
    assert ObjectStore(*s3_store).read("a/b") == b"mine"
