"""fsspec options of a location, from the spec or from an Airflow connection.

In:  a `Location` of a spec.
Out: keyword options for fsspec.
Wrong: a connection id without Airflow, or an unknown one: an error that names the id. Values are never shown.
"""

from __future__ import annotations

import sys
from typing import Any

from memorag_pipeline.errors import MissingDependencyError, NotFoundError, StorageError
from memorag_pipeline.machine.airflow_home import deployment_problem
from memorag_pipeline.redaction import secret_in_options
from memorag_pipeline.specs.location import Location, addresses_are_urls


def options_for(location: Location) -> dict[str, Any]:
    """Options to open `location` with."""
    if location.connection_id is None:
        return dict(location.storage_options)
    connection = airflow_connection(location.connection_id)
    extra = connection.extra_dejson
    options: dict[str, Any] = {"key": connection.login, "secret": connection.password}
    options["token"] = extra.get("aws_session_token")
    options["endpoint_url"] = extra.get("endpoint_url")
    client: dict[str, Any] = {"region_name": extra["region_name"]} if "region_name" in extra else {}
    given = {name: value for name, value in {**options, "client_kwargs": client}.items() if value}
    refuse_secret_addresses(f"the Airflow connection {location.connection_id!r}", given)
    if problem := addresses_are_urls(given):
        raise StorageError(f"the Airflow connection {location.connection_id!r} {problem}; write it as http://host:port")
    return given


def refuse_secret_addresses(where: str, options: dict[str, Any]) -> None:
    """Refuse options whose server address contains a secret: libraries quote it in errors."""
    if found := secret_in_options(options):
        raise StorageError(
            f"{where}: {found[0]} has {found[1]}, which errors would quote; give it in an option of its own, such as"
            " key and secret"
        )


def airflow_connection(connection_id: str) -> Any:
    """The Airflow connection called `connection_id`."""
    try:
        from airflow.sdk import BaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException
    except ImportError:
        raise MissingDependencyError(
            f"connection_id {connection_id!r} needs Airflow (extra airflow); without it give storage_options"
        ) from None
    try:
        return BaseHook.get_connection(connection_id)
    except AirflowNotFoundException:
        found = _of_deployment(connection_id)
    if found is None:
        raise NotFoundError(f"Airflow has no connection {connection_id!r}; add it, or correct connection_id")
    return found


def _of_deployment(connection_id: str) -> Any:
    """The connection from the metadata database of the deployment here; None in a task, which has been answered."""
    task = sys.modules.get("airflow.sdk.execution_time.task_runner")
    if hasattr(task, "SUPERVISOR_COMMS") or deployment_problem() is not None:
        return None
    from airflow.exceptions import AirflowNotFoundException
    from airflow.models.connection import Connection

    try:
        return Connection.get_connection_from_secrets(connection_id)
    except AirflowNotFoundException:
        return None
