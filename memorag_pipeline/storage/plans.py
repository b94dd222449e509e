"""What stages hand to each other in the store: plans and work lists, as JSON blobs with a type, long lists as tables.

In:  a frozen model, or the URI of a stored one and its type.
Out: the URI; the model.
Wrong: JSON that is not of the type is a `PlanError` that names the file; a blob that is gone or altered is a
       `CorruptBlobError`.

Unknown keys are ignored, so that plans of other releases can be read as long as they hold what is needed. A list that a
plan names in `tables`, and that has more than `LONGEST_LIST` items, is a table in Parquet, which the JSON names in its
place: JSON has a largest size, and as JSON a list is in memory three times over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from memorag_pipeline.errors import PlanError
from memorag_pipeline.storage.blobs import BlobRef, Blobs

LONGEST_LIST = 16_384  # items in JSON


class Planned(Protocol):
    """A unit of a plan. `weight` is its number of tokens if that is known, otherwise 1."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def weight(self) -> int: ...


class Plan(BaseModel):
    """Base class of plans, work lists and their units. `tables` has the schemas of lists that may be long, by name."""

    tables: ClassVar[Mapping[str, pa.Schema]] = {}
    model_config = ConfigDict(frozen=True, extra="ignore")

    def weights(self, name: str) -> dict[str, int]:
        """Fingerprints and weights of the units that the attribute `name` holds, each unit once."""
        units: tuple[Planned | str, ...] = getattr(self, name)
        return dict((unit, 1) if isinstance(unit, str) else (unit.fingerprint, unit.weight) for unit in units)


class Unit(Plan):
    """A unit of work, known by the fingerprint of all that it depends on."""

    fingerprint: str

    @property
    def weight(self) -> int:
        """Each counts as one."""
        return 1


U = TypeVar("U", bound=Plan)
P = TypeVar("P", bound=Plan)


class WorkList(Plan, Generic[U]):
    """The units of one task. Any work list whose units have fingerprints can be read as a `WorkList[Unit]`."""

    units: tuple[U, ...] = Field(validation_alias=AliasChoices("units", "parts"))


class _Table(BaseModel):
    """What stands in the JSON for a list that is a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: BlobRef


def write_plan(blobs: Blobs, plan: Plan) -> str:
    """Store a plan or work list and return its URI."""
    lists = {name: getattr(plan, name) or () for name in plan.tables}
    long = {
        name: _Table(table=blobs.put_table(_table(items, plan.tables[name]))).model_dump()
        for name, items in lists.items()
        if len(items) > LONGEST_LIST
    }
    short = plan.model_dump(mode="json", by_alias=True, exclude=set(long))
    return blobs.uri(blobs.put_json({**short, **long}))


def read_plan(blobs: Blobs, uri: str, form: type[P]) -> P:
    """The plan or work list at `uri`, verified."""
    value = blobs.get_json(blobs.ref_of(uri), f"work list {uri}")
    try:
        if isinstance(value, dict):
            tables = {name for name in form.tables if isinstance(value.get(name), dict)}
            value |= {name: _items(blobs, _Table.model_validate(value[name]), form, name) for name in tables}
        return form.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise PlanError(
            f"{uri} is not a {form.__name__} that this release can read ({place}: {first['msg']});"
            " run the stage that wrote it again"
        ) from error


def _table(items: Sequence[BaseModel | str], schema: pa.Schema) -> pa.Table:
    """Models, or texts for a schema of one column, as rows; what is not dumped of a model has no value."""
    batches = [schema.empty_table()]
    for start in range(0, len(items), LONGEST_LIST):
        some = items[start : start + LONGEST_LIST]
        rows = [{schema.names[0]: item} if isinstance(item, str) else item.model_dump() for item in some]
        batches.append(pa.Table.from_pylist(rows, schema=schema))
    return pa.concat_tables(batches).combine_chunks()


def _items(blobs: Blobs, stored: _Table, form: type[Plan], name: str) -> tuple[Any, ...]:
    schema = form.tables[name]
    table = blobs.get_table(stored.table, schema.names, f"{form.__name__}.{name}", schema)
    annotation: Any = form.model_fields[name].annotation
    items: TypeAdapter[tuple[Any, ...] | None] = TypeAdapter(annotation)
    return tuple(item for rows in _rows(table) for item in items.validate_python(rows) or ())


def _rows(table: pa.Table) -> Iterator[list[Any]]:
    """The rows in batches, as `_table` got them."""
    for batch in table.to_batches(max_chunksize=LONGEST_LIST):
        if batch.num_columns == 1:
            yield batch.column(0).to_pylist()
        else:
            yield [{key: value for key, value in row.items() if value is not None} for row in batch.to_pylist()]
