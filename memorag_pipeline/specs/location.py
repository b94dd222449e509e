"""A URI with the options and credentials that open it."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from memorag_pipeline.redaction import secret_in_options
from memorag_pipeline.specs.section import Rule, Section
from memorag_pipeline.specs.values import ConnectionId


def one_source_of_credentials(storage_options: dict[str, Any], connection_id: str | None) -> str | None:
    return "storage_options and connection_id are both given" if storage_options and connection_id else None


def addresses_hold_no_secret(storage_options: dict[str, Any]) -> str | None:
    found = secret_in_options(storage_options)
    return f"has {found[0]} with {found[1]}, which errors would quote" if found else None


def addresses_are_urls(storage_options: dict[str, Any]) -> str | None:
    client = storage_options.get("client_kwargs")
    for place, values in (("", storage_options), ("client_kwargs.", client if isinstance(client, dict) else {})):
        url = values.get("endpoint_url")
        if url is not None and not str(url).startswith(("http://", "https://")):
            return f"has {place}endpoint_url without http:// or https://"
    return None


class Location(Section):
    """Access to an object store: options for fsspec, or the id of an Airflow connection that holds them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("connection_id", "storage_options"), one_source_of_credentials, "give only one of the two"),
        Rule(("storage_options",), addresses_hold_no_secret, "give it in an option of its own, such as key and secret"),
        Rule(("storage_options",), addresses_are_urls, "write it as http://host:port or https://host"),
    )

    storage_options: dict[str, Any] = Field(
        default={},
        repr=False,
        description="Options for fsspec, e.g. {endpoint_url: http://127.0.0.1:8333}. Secrets as ${VARIABLE}.",
    )
    connection_id: ConnectionId | None = Field(
        default=None, description="Airflow connection that holds credentials and endpoint."
    )
