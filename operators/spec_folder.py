"""All corpus specs of a folder, sorted into those that DAGs can be built from and those that cannot.

In:  a folder of YAML files.
Out: the accepted specs by file, and every problem of the others.
Wrong: nothing is raised: one broken spec must not take the DAGs of the other corpora away.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memorag_pipeline.errors import SpecError, SpecProblem
from memorag_pipeline.spec import CorpusSpec, read_spec


@dataclass(frozen=True)
class SpecFolder:
    """The specs of one folder. `problems` names the file and key of all that was refused."""

    specs: dict[Path, CorpusSpec]
    problems: tuple[SpecProblem, ...]


def spec_folder(default: Path) -> Path:
    """The folder named by the environment variable MEMORAG_SPECS, else `default`."""
    return Path(os.environ.get("MEMORAG_SPECS") or default)


def read_spec_folder(folder: Path) -> SpecFolder:
    """Read every `*.yaml` of `folder`."""
    specs: dict[Path, CorpusSpec] = {}
    problems: list[SpecProblem] = []
    owners: dict[str, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            spec = read_spec(path)
        except SpecError as error:
            problems.extend(error.problems)
            continue
        found = [*_executor_problems(path, spec), *_clashes(path, spec, owners)]
        if found:
            problems.extend(found)
        else:
            specs[path] = spec
            owners.update(dict.fromkeys(_dag_ids(spec).values(), path))
    return SpecFolder(specs, tuple(problems))


def refresh_dag_id(spec: CorpusSpec) -> str:
    """Id of the DAG that refreshes the corpus."""
    return f"{spec.corpus}_refresh"


def job_dag_id(spec: CorpusSpec, job: str) -> str:
    """Id of the DAG that runs one of the corpus's jobs."""
    return f"{spec.corpus}_{job}"


def _dag_ids(spec: CorpusSpec) -> dict[str, str]:
    """Ids of all DAGs of the corpus, by the key of the spec that names them."""
    return {"corpus": refresh_dag_id(spec), **{f"jobs.{job}": job_dag_id(spec, job) for job in spec.jobs}}


def _executor_problems(path: Path, spec: CorpusSpec) -> Iterator[SpecProblem]:
    """An executor that this deployment lacks; found later by the DAG processor, it would disable the whole DAG file."""
    from airflow.exceptions import UnknownExecutorException
    from airflow.executors.executor_loader import ExecutorLoader

    executor = spec.compute.executor
    if executor is None:
        return
    try:
        ExecutorLoader.lookup_executor_name_by_str(executor, validate_teams=False)
    except UnknownExecutorException:
        fix = "list it in Airflow's [core] executor, or leave the key out"
        yield SpecProblem(str(path), "compute.executor", repr(executor), "is not an executor of this deployment", fix)


def _clashes(path: Path, spec: CorpusSpec, owners: dict[str, Path]) -> Iterator[SpecProblem]:
    """Names that give a DAG id which an earlier spec has: Airflow would keep only one of the two DAGs."""
    for key, dag_id in _dag_ids(spec).items():
        if dag_id in owners:
            problem = f"gives the DAG id {dag_id}, which {owners[dag_id]} gives already"
            yield SpecProblem(str(path), key, "", problem, "choose another name")
