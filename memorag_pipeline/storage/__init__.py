"""Object store access, content-addressed blobs, the unit cache, versions and channels."""

from memorag_pipeline.storage.blobs import BlobRef, Blobs
from memorag_pipeline.storage.manifest import Manifest, ManifestBlob, MemoryRecord, ModelRecord
from memorag_pipeline.storage.objects import ObjectStore
from memorag_pipeline.storage.store import CorpusStore
from memorag_pipeline.storage.units import Outcome, fingerprint

__all__ = [
    "BlobRef",
    "Blobs",
    "CorpusStore",
    "Manifest",
    "ManifestBlob",
    "MemoryRecord",
    "ModelRecord",
    "ObjectStore",
    "Outcome",
    "fingerprint",
]
