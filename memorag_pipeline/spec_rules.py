"""Combinations of keys that cannot work, as rules that a section of the spec carries.

In:  the values of a rule's keys.
Out: None, or what is wrong with them together.
Wrong: nothing is raised here. `Section` refuses values that break its rules; the reader applies each rule whose own
    keys are right, even when other keys are wrong, so that one mistake does not hide another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import Any


@dataclass(frozen=True)
class Conflict:
    """A broken rule: its keys (relative to the section), the value of the first, the problem, what would be right."""

    keys: tuple[str, ...]
    value: Any
    problem: str
    fix: str


@dataclass(frozen=True)
class Rule:
    """`problem` gets the values at `keys` (dotted, relative to the section) and returns None when they fit."""

    keys: tuple[str, ...]
    problem: Callable[..., str | None]
    fix: str


def conflicts(section: Any, rules: tuple[Rule, ...]) -> Iterator[Conflict]:
    """The rules that `section` breaks."""
    for rule in rules:
        values = [reduce(getattr, key.split("."), section) for key in rule.keys]
        problem = rule.problem(*values)
        if problem is not None:
            yield Conflict(rule.keys, values[0], problem, rule.fix)


def one_source_of_credentials(storage_options: dict[str, Any], connection_id: str | None) -> str | None:
    return "storage_options and connection_id are both given" if storage_options and connection_id else None


def records_are_included(field: str | list[str] | None, include: list[str]) -> str | None:
    return "has no use where no files hold records" if field and not include else None


def overlap_fits(overlap: int, chunk: int) -> str | None:
    return None if overlap < chunk else f"is not smaller than max_tokens ({chunk})"


def shard_bounds_fit(minimum: int, maximum: int) -> str | None:
    return None if minimum * 2 <= maximum else f"is more than half of max_tokens ({maximum})"


def stale_has_use(max_stale: float, mode: str) -> str | None:
    return "has no use where no memory gets stale" if mode == "exact" and max_stale != 0.2 else None


def ratio_fits_kind(ratio: int | tuple[int, ...] | None, kind: str) -> str | None:
    if kind in ("full", "gist") and ratio not in (None, 1):
        return f"needs a compressing memory; kind {kind} keeps every token that it reads"
    return None


def selected_has_one_ratio(ratio: int | tuple[int, ...] | None, kind: str) -> str | None:
    if kind == "selected" and (isinstance(ratio, tuple) or ratio == 0):
        return "is not a single ratio of 1 or more, which kind selected needs"
    return None


def ratios_fit_window(ratio: int | tuple[int, ...] | None, window: int | None) -> str | None:
    several = ratio if isinstance(ratio, tuple) and len(ratio) > 1 else ()
    if several and window and all(each and window % each for each in several):
        return f"has none that divides the window of {window} tokens, which picking from several needs"
    return None


def mix_has_use(ratio_mix: str, ratio: int | tuple[int, ...] | None) -> str | None:
    if ratio_mix != "sequence" and (not isinstance(ratio, tuple) or len(ratio) == 1):
        return "has no use without several ratios to pick from"
    return None


def policy_has_use(policy: str, kind: str) -> str | None:
    return "has no use in a memory of another kind" if policy != "attention" and kind != "selected" else None


def sink_fits_window(sink: int | None, window: int | None) -> str | None:
    return f"is larger than the window of {window} tokens" if sink and window and sink > window else None


def only_for_beacons(adapter: str | None, kind: str) -> str | None:
    return "has no use in a memory without beacons" if adapter is not None and kind != "beacon" else None


def only_for_compressed(sink: int | None, kind: str) -> str | None:
    return "has no use in a memory that keeps every token" if sink is not None and kind in ("full", "gist") else None


def revision_has_use(revision: str | None, model: str | None) -> str | None:
    if revision is not None and (model is None or not is_hub_id(model)):
        return "is only for a Hugging Face id"
    return None


def endpoint_has_url(base_url: str | None, kind: str) -> str | None:
    return f"is missing; kind {kind} needs it" if base_url is None and kind != "openai" else None


def only_azure_has_versions(api_version: str | None, kind: str) -> str | None:
    if kind == "azure":
        return "is missing; kind azure needs it" if api_version is None else None
    return f"has no use for kind {kind}" if api_version is not None else None


def one_source_of_key(connection_id: str | None, key_variable: str | None) -> str | None:
    return "connection_id and key_variable are both given" if connection_id and key_variable else None


def budget_has_prices(budget: float | None, prices: Any) -> str | None:
    return "cannot be kept without prices" if budget is not None and prices is None else None


def endpoint_has_model(model: str | None, endpoint: Any) -> str | None:
    return "is missing; an endpoint has no model of its own" if model is None and endpoint is not None else None


def weights_are_local(value: Any, endpoint: Any) -> str | None:
    return "has no use with an endpoint" if value is not None and endpoint is not None else None


def penalty_is_known(penalty: float, endpoint: Any) -> str | None:
    if penalty != 1 and endpoint is not None and endpoint.kind != "compatible":
        return f"is not known to endpoints of kind {endpoint.kind}"
    return None


def is_hub_id(model: str) -> bool:
    """Whether a model reference names a repository on the Hugging Face hub."""
    return re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model) is not None


def one_cache_volume(claim: str | None, host_path: str | None) -> str | None:
    if claim is not None and host_path is not None:
        return "claim and host_path are both given"
    return "neither claim nor host_path is given" if claim is None and host_path is None else None


def gpus_have_one_place(resource: str, requests: dict[str, str], limits: dict[str, str]) -> str | None:
    return "is among the resources, too" if resource in (requests | limits) else None


def requests_fit_limits(requests: dict[str, str], limits: dict[str, str]) -> str | None:
    for resource, request in requests.items():
        limit = limits.get(resource, request)
        if _amount(request) > _amount(limit):
            return f"has {resource} {request}, which is more than the limit of {limit}"
    return None


def _amount(quantity: str) -> Decimal:
    """The number that a quantity of Kubernetes stands for: 500m is 0.5, 1Ki is 1024."""
    number = quantity.rstrip("mkKMGTPEi")
    unit = quantity[len(number) :]
    if unit == "m":
        return Decimal(number) / 1000
    power = "kMGTPE".index(unit[0].replace("K", "k")) + 1 if unit else 0
    return Decimal(number) * Decimal(1024 if unit.endswith("i") else 1000) ** power


def env_holds_no_secret(env: dict[str, str]) -> str | None:
    secret = next((name for name in env if re.search("(SECRET|PASSWORD|TOKEN|KEY)$", name)), None)
    return f"has {secret}, which Airflow would store and show" if secret else None


def pod_has_use(kubernetes: Any, executor: str | None) -> str | None:
    if kubernetes is not None and executor in ("LocalExecutor", "CeleryExecutor"):
        return f"has no use for the {executor}, which makes no pods"
    return None


def exactly_one_of_questions(uri: str | None, sql: str | None) -> str | None:
    if uri is not None and sql is not None:
        return "uri and sql are both given"
    return "neither uri nor sql is given" if uri is None and sql is None else None


def sql_needs_no_location(sql: str | None, storage_options: dict[str, Any], connection_id: str | None) -> str | None:
    if sql is not None and (storage_options or connection_id):
        return "a query runs on the job's warehouse; storage_options and connection_id are for a uri"
    return None


def only_answers_have_questions(questions: Any, kind: str) -> str | None:
    if kind == "answers":
        return "is missing; kind answers needs it" if questions is None else None
    return f"has no use for kind {kind}" if questions is not None else None


def has_use_for_answers(value: Any, default: Any, kind: str) -> str | None:
    return f"has no use for kind {kind}" if kind != "answers" and value != default else None


def summaries_have_use(summaries: Any, kind: str) -> str | None:
    return f"has no use for kind {kind}" if kind != "summaries" and summaries != type(summaries)() else None


def warehouse_has_database(destination: str, database: str | None, connection_id: str | None) -> str | None:
    if destination == "duckdb":
        if connection_id is not None:
            return "duckdb takes no connection_id"
        return None if database else "duckdb needs database, the path of its file"
    if (database is None) == (connection_id is None):
        return "postgres needs exactly one of database and connection_id"
    return None


def database_is_postgres(database: str | None, destination: str) -> str | None:
    if destination == "postgres" and database is not None and not re.match(r"postgres(ql)?://", database):
        return "is not a URL of a PostgreSQL database"
    return None


def chunk_fits_embedding(chunk: int, embedding: int) -> str | None:
    if chunk > embedding:
        return f"is larger than embedding.max_tokens ({embedding}); the end of a chunk would not be embedded"
    return None


def chunk_fits_shard(chunk: int, shard: int) -> str | None:
    return f"is larger than sharding.max_tokens ({shard}); a shard holds whole chunks" if chunk > shard else None


def clues_have_use(clues: list[str], mode: str) -> str | None:
    if mode == "memorag" or clues in ([], ["spans", "surrogates"]):
        return None
    return f"has no use in mode {mode}, which recalls no clues"


def draft_is_recalled(offered: bool, clues: list[str], mode: str) -> str | None:
    return "is set, but no draft is recalled" if offered and (mode != "memorag" or "draft" not in clues) else None


def table_is_free(table: str | None) -> str | None:
    taken = table in ("evidence", "runs", "quarantine") or (table or "").startswith(("latest_", "staged_", "_dlt"))
    return "is the name of a table or view of the warehouse's own" if taken else None


def gate_has_bounds(minimum: dict[str, float], max_drop: dict[str, float]) -> str | None:
    return None if minimum or max_drop else "is missing, and so is max_drop: every version would be promoted"


def jobs_have_own_names(jobs: dict[str, Any]) -> str | None:
    taken = next((name for name in ("refresh", "maintenance", "backfill") if name in jobs), None)
    return f"a job cannot be called {taken}; its DAG would have the name of the corpus's {taken}" if taken else None


def some_texts(text: list[str], corpus: str | None) -> str | None:
    return "neither text nor corpus is given" if not text and corpus is None else None


def sequences_fit_batch(batch: int, sequence: int) -> str | None:
    return f"is not a multiple of sequence_tokens ({sequence})" if batch % sequence else None


def all_divide_window(ratios: tuple[int, ...], window: int) -> str | None:
    wrong = [ratio for ratio in ratios if window % ratio]
    return f"has {wrong[0]}, which does not divide the window of {window} tokens" if wrong else None


def sequence_has_windows(sequence: int, window: int) -> str | None:
    return None if sequence >= 2 * window else f"is shorter than two windows of {window} tokens: nothing is remembered"


def first_is_evaluated(evaluated: tuple[int, ...], ratios: tuple[int, ...]) -> str | None:
    return None if ratios[0] in evaluated else f"does not have {ratios[0]}, the first that is trained"


def attended_have_keys_and_values(projections: tuple[str, ...] | None, placement: str) -> str | None:
    if placement != "attended" or set(projections or ()) <= {"k", "v"}:
        return None
    return "has more than k and v: attended beacons are tokens, whose queries and outputs are the model's"


def attended_have_no_embedding(start: str, placement: str) -> str | None:
    return "has no use: attended beacons have no embedding" if placement == "attended" and start != "copy" else None


def study_needs_corpus(passages: int, corpus: str | None) -> str | None:
    return "has no use without a corpus" if passages and corpus is None else None


def study_is_local(endpoint: Any) -> str | None:
    return "cannot be used: the self-study asks a model in the process" if endpoint is not None else None


def instructions_are_given(tokens: int, instructions: list[str], passages: int) -> str | None:
    return None if not tokens or instructions or passages else "there are no instructions to train on"
