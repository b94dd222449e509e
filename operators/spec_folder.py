"""All specs of a folder, sorted into those that DAGs can be built from and those that cannot.

In:  a folder of YAML files, corpus specs; those of trainings in its folder `training`.
Out: the accepted specs by file, and every problem of the others.
Wrong: an unusable file is refused, never raised: one broken spec must not remove the DAGs of others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from memorag_pipeline.errors import SpecError, SpecProblem
from memorag_pipeline.specs.compute import ComputeSpec
from memorag_pipeline.specs.corpus import CorpusSpec, read_spec
from memorag_pipeline.specs.file import spec_files
from memorag_pipeline.specs.training import TrainingSpec, read_training_spec

_log = logging.getLogger(__name__)

S = TypeVar("S", CorpusSpec, TrainingSpec)


@dataclass(frozen=True)
class SpecFolder:
    """The specs of one folder. `problems` names the file and key of all that was refused."""

    specs: dict[Path, CorpusSpec]
    trainings: dict[Path, TrainingSpec]
    problems: tuple[SpecProblem, ...]


def spec_folder(default: Path) -> Path:
    """The folder named by the environment variable MEMORAG_SPECS, or `default`."""
    return Path(os.environ.get("MEMORAG_SPECS") or default)


def read_spec_folder(folder: Path) -> SpecFolder:
    """Read every spec file (`*.yaml`, `*.yml`) of `folder` and of its folder `training`."""
    problems: list[SpecProblem] = []
    owners: dict[str, Path] = {}
    specs = dict(_accepted(folder, read_spec, problems, owners))
    trainings = dict(_accepted(folder / "training", read_training_spec, problems, owners))
    return SpecFolder(specs, trainings, tuple(problems))


def refresh_dag_id(spec: CorpusSpec) -> str:
    """Id of the DAG that refreshes the corpus."""
    return f"{spec.corpus}_refresh"


def maintenance_dag_id(spec: CorpusSpec) -> str:
    """Id of the DAG that looks after the corpus's store."""
    return f"{spec.corpus}_maintenance"


def backfill_dag_id(spec: CorpusSpec) -> str:
    """Id of the DAG that runs the corpus's jobs over older versions."""
    return f"{spec.corpus}_backfill"


def train_dag_id(spec: TrainingSpec) -> str:
    """Id of the DAG that trains an adapter."""
    return f"{spec.adapter}_train"


def job_dag_id(spec: CorpusSpec, job: str) -> str:
    """Id of the DAG that runs one of the corpus's jobs."""
    return f"{spec.corpus}_{job}"


def _accepted(
    folder: Path, read: Callable[[Path], S], problems: list[SpecProblem], owners: dict[str, Path]
) -> Iterator[tuple[Path, S]]:
    """The specs of a folder that DAGs can be built from; problems and the DAG ids that are taken are added."""
    for path in spec_files(folder):
        try:
            _check_name(path)
            spec = read(path)
            found = [*_compute_problems(path, spec.compute), *_clashes(path, spec, owners), *_dag_problems(path, spec)]
        except SpecError as error:
            problems.extend(error.problems)
            continue
        except Exception as error:  # a bug here or in a library: it must affect this file only
            problem = f"cannot be used, for an unexpected {type(error).__name__} (a fault of this package; report it)"
            problems.append(SpecProblem(str(path), "", "", problem, "take it out, or change what was changed last"))
            _log.exception("The spec %s cannot be used", path)
            continue
        problems.extend(found)
        if not found:
            owners.update(dict.fromkeys(_dag_ids(spec).values(), path))
            yield path, spec


def _check_name(path: Path) -> None:
    """Airflow keeps the name of the file in its database, as text."""
    shown = os.fsencode(path).decode("utf-8", "replace")
    if shown != str(path):
        raise SpecError([SpecProblem(shown, "", "", "has a name that is not UTF-8", "rename the file")])


def _dag_problems(path: Path, spec: CorpusSpec | TrainingSpec) -> Iterator[SpecProblem]:
    """What Airflow does not accept from the DAGs of a spec, for instance because a provider is missing."""
    from memorag_operators.alerts import alert_arguments
    from memorag_operators.placement import gpu_placement, retry_arguments
    from memorag_operators.watcher import schedule_of, source_asset

    makers: dict[str, Callable[[], object]] = {
        "compute": lambda: (retry_arguments(spec.compute), gpu_placement(spec.compute))
    }
    if isinstance(spec, CorpusSpec):
        makers["alerts"] = lambda: alert_arguments(str(path), spec)
        makers["schedule"] = lambda: schedule_of(spec.schedule, source_asset(str(path), spec))
    for key, make in makers.items():
        try:
            make()
        except Exception as error:
            problem = f"is not accepted by this Airflow: {type(error).__name__}: {error}"
            yield SpecProblem(str(path), key, "", problem, "correct it, or leave it out")


def _dag_ids(spec: CorpusSpec | TrainingSpec) -> dict[str, str]:
    """Ids of all DAGs of a spec, by the key that names them."""
    if isinstance(spec, TrainingSpec):
        return {"adapter": train_dag_id(spec)}
    found = {"corpus": refresh_dag_id(spec), **{f"jobs.{job}": job_dag_id(spec, job) for job in spec.jobs}}
    if spec.jobs:
        found["jobs"] = backfill_dag_id(spec)
    return found if spec.maintenance is None else {**found, "maintenance": maintenance_dag_id(spec)}


def _compute_problems(path: Path, compute: ComputeSpec) -> Iterator[SpecProblem]:
    """What this deployment lacks; found later by the DAG processor, it would disable the whole DAG file."""
    yield from _executor_problems(path, compute)
    yield from _pod_problems(path, compute)


def _executor_problems(path: Path, compute: ComputeSpec) -> Iterator[SpecProblem]:
    from airflow.exceptions import UnknownExecutorException
    from airflow.executors.executor_loader import ExecutorLoader

    executor = compute.executor
    if executor is None:
        return
    try:
        ExecutorLoader.lookup_executor_name_by_str(executor, validate_teams=False)
    except UnknownExecutorException:
        fix = "list it in Airflow's [core] executor, or leave the key out"
        yield SpecProblem(str(path), "compute.executor", repr(executor), "is not an executor of this deployment", fix)


def _pod_problems(path: Path, compute: ComputeSpec) -> Iterator[SpecProblem]:
    if compute.kubernetes is None:
        return
    try:
        import airflow.providers.cncf.kubernetes.pod_generator  # noqa: F401
    except ImportError as error:
        fix = "pip install apache-airflow-providers-cncf-kubernetes, or leave the section out"
        yield SpecProblem(str(path), "compute.kubernetes", "", f"needs Airflow's Kubernetes provider ({error})", fix)


def _clashes(path: Path, spec: CorpusSpec | TrainingSpec, owners: dict[str, Path]) -> Iterator[SpecProblem]:
    """Names that give a DAG id which an earlier spec has: Airflow would keep only one of the two DAGs."""
    for key, dag_id in _dag_ids(spec).items():
        if dag_id in owners:
            problem = f"gives the DAG id {dag_id}, which {owners[dag_id]} gives already"
            yield SpecProblem(str(path), key, "", problem, "choose another name")
