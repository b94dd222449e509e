"""What stages hand to each other in the store: plans and work lists, as JSON blobs with a type.

In:  a frozen model, or the URI of a stored one and its type.
Out: the URI; the model.
Wrong: JSON that is not of the type is a `PlanError` that names the file; a blob that is gone or altered is a
       `CorruptBlobError`.

Unknown keys are ignored, so that plans of other releases can be read as long as they hold what is needed.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from memorag_pipeline.errors import PlanError
from memorag_pipeline.storage.blobs import Blobs


class Planned(Protocol):
    """A unit of a plan. `weight` is its number of tokens if that is known, otherwise 1."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def weight(self) -> int: ...


class Plan(BaseModel):
    """Base class of plans, work lists and their units."""

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


def write_plan(blobs: Blobs, plan: Plan) -> str:
    """Store a plan or work list and return its URI."""
    return blobs.uri(blobs.put_json(plan.model_dump(mode="json", by_alias=True)))


def read_plan(blobs: Blobs, uri: str, form: type[P]) -> P:
    """The plan or work list at `uri`, verified."""
    value = blobs.get_json(blobs.ref_of(uri), f"work list {uri}")
    try:
        return form.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise PlanError(
            f"{uri} is not a {form.__name__} that this release can read ({place}: {first['msg']});"
            " run the stage that wrote it again"
        ) from error
