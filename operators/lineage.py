"""What a task read and wrote, as OpenLineage datasets: the source, the version of the corpus, tables of the warehouse.

In:  an operator whose stage has ended.
Out: an `OperatorLineage`, with OpenLineage's names for datasets of object stores and databases.
Wrong: what is not known is left out. No name contains a secret.

Stages in the middle of a refresh read the source, and those of a job a version: between them pass blobs of the store,
which nothing else reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import Dataset
from openlineage.client.facet_v2 import dataset_version_dataset

from memorag_pipeline.jobs.answers.stages import LOAD
from memorag_pipeline.refresh.stages import GATE, PUBLISH

if TYPE_CHECKING:
    from memorag_pipeline.specs.corpus import CorpusSpec
    from memorag_pipeline.specs.jobs import WarehouseSpec


def lineage(done: tuple[Any, dict[str, Any]] | None, stage: str | None, of_job: bool, dag_id: str) -> OperatorLineage:
    """Inputs and outputs of a task that has `done` its stage: the spec, and what the stage returned."""
    if done is None or not hasattr(done[0], "corpus"):
        return OperatorLineage()
    spec, result = done
    inputs, outputs = [], []
    if of_job or stage in {each.name for each in GATE}:
        inputs.append(_version(spec, result.get("version")))
    elif stage is not None:
        inputs += _sources(spec)
    if stage == PUBLISH.name:
        outputs.append(_version(spec, result.get("version")))
    if stage == LOAD.name:
        job = spec.jobs.get(dag_id.removeprefix(f"{spec.corpus}_"))
        outputs += [] if job is None else _tables(job.warehouse, job.table, "evidence", "runs")
    if stage is None and spec.warehouse is not None and "status" in result:
        outputs += _tables(spec.warehouse, "runs", "quarantine")
    return OperatorLineage(inputs=inputs, outputs=outputs)


def _sources(spec: CorpusSpec) -> Iterator[Dataset]:
    return (_place(uri) for uri in spec.source.uris)


def _version(spec: CorpusSpec, number: Any) -> Dataset:
    place = _place(f"{spec.store.uri.rstrip('/')}/{spec.corpus}")
    facets = {}
    if number is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(number))
    return Dataset(namespace=place.namespace, name=place.name, facets=facets)


def _place(uri: str) -> Dataset:
    """A folder of an object store, or of this machine."""
    scheme, separator, path = uri.partition("://")
    if not separator or scheme == "file":
        return Dataset(namespace="file", name=path or uri)
    bucket, _, prefix = path.partition("/")
    return Dataset(namespace=f"{scheme}://{bucket}", name=prefix or "/")


def _tables(warehouse: WarehouseSpec, *tables: str) -> Iterator[Dataset]:
    from memorag_pipeline.specs.jobs import DESTINATIONS

    destination = DESTINATIONS[warehouse.destination]
    if destination.is_file:
        namespace, database = warehouse.destination, f"{warehouse.database}."
    elif warehouse.database:
        url = urlsplit(warehouse.database)
        server = f"{url.hostname}:{url.port or destination.port}"
        namespace, database = f"{destination.schemes[0]}://{server}", f"{url.path.lstrip('/')}."
    else:
        namespace, database = f"airflow-connection://{warehouse.connection_id}", ""
    return (Dataset(namespace=namespace, name=f"{database}{warehouse.dataset}.{table}") for table in tables)
