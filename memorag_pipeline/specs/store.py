"""Section `store`: where a corpus is published, and which versions are kept."""

from __future__ import annotations

from pydantic import Field

from memorag_pipeline.specs.location import Location
from memorag_pipeline.specs.section import Section
from memorag_pipeline.specs.values import (
    Uri,
)


class RetentionSpec(Section):
    """Which versions `memorag gc` keeps; it retires the others. Without last, daily and weekly, all are kept.

    The newest version and those that channels point to are always kept.
    """

    last: int | None = Field(default=None, ge=1, description="Keep this many of the newest.")
    daily: int | None = Field(
        default=None, ge=1, description="Keep the newest version of each of this many days that have one."
    )
    weekly: int | None = Field(
        default=None, ge=1, description="Keep the newest version of each of this many weeks that have one."
    )
    grace_days: float = Field(
        default=7,
        ge=4,
        le=36_500,
        description="Days after which unreferenced objects are deleted; give 3 more than the longest refresh takes.",
    )

    @property
    def keeps_all(self) -> bool:
        """Whether no rule would retire a version."""
        return self.last is self.daily is self.weekly is None


class StoreSpec(Location):
    """Where versions are published."""

    uri: Uri = Field(description="Folder or bucket; the corpus is stored in a folder of its name below it.")
    retention: RetentionSpec = RetentionSpec()
