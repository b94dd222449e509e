"""The plan of a delta refresh: new sections go to delta shards, memories stay until too much of them is stale.

In:  the shards of the parent version, as their memories were read; the sections of the current documents.
Out: the shards of the new version. Shards that stay keep their sections as read, including stale ones; the text of
     every current section is in one shard, and not stale there.

A pure function, so a retry makes the same plan.

A section is held by the shard whose memory was read from the same content, under any URI. One whose text is held under
another heading is not new. Then:

1. A base shard is read again when more than `max_stale` of its tokens are stale: no longer in any document. It gets
   what it holds, in its order, followed by the sections that come after its own in order of URI and are new or in a
   delta shard. So what changes often moves to the end, and the windows before it are kept the next time.
2. Everything else that is new is added to the open delta shard, the last one. Its memory is continued, so that each
   token is read once. When it is full it becomes a base shard, if it is fresh enough for one, and a new one is started.
3. A delta shard is read again when more than two thirds of its tokens are idle: stale, or now held by a base shard.
   Then what it holds counts as new. It is at most half of what is idle, so all delta shards together take at most 1.5
   times the tokens that are new.

docs/refresh.md says what this bounds, and why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from memorag_pipeline.refresh.shard_plan import Bounds, Shard, grouped, new_shard_id
from memorag_pipeline.refresh.shard_sections import ShardSection

MOST_IDLE = Fraction(2, 3)


def plan_delta(
    parent: Sequence[Shard],
    sections: Iterable[ShardSection],
    bounds: Bounds,
    max_stale: float,
    forced: Collection[str] = (),
) -> list[Shard]:
    """The shards that follow those of `parent`, base shards first. Shards whose ids are in `forced` do not stay."""
    plan = _Plan(parent, sections, bounds, max_stale, forced)
    plan.rebuild_bases()
    plan.sort_out_deltas()
    plan.add_what_is_new()
    return [*plan.bases, *plan.deltas]


def stale_tokens(shard: Shard, current: Collection[str]) -> int:
    """Tokens that were read from sections that are no longer in any document; `current` has the current contents."""
    return sum(section.tokens for section in shard.sections if section.content not in current)


class _Plan:
    """The plan while it is made. `holder` has the id of the shard that holds a content; what has none is to be read."""

    def __init__(
        self,
        parent: Sequence[Shard],
        sections: Iterable[ShardSection],
        bounds: Bounds,
        max_stale: float,
        forced: Collection[str],
    ) -> None:
        self._bounds, self._max_stale, self._forced = bounds, max_stale, forced
        self._current: dict[str, ShardSection] = {}
        for section in sections:
            self._current.setdefault(section.content, section)
        self._parent = [self._renamed(shard) for shard in parent]
        self._holder: dict[str, str] = {}
        for shard in self._parent:
            self._hold(shard)
        once = _each_text_once(self._current.values(), self._holder)
        self._current = {section.content: section for section in once}
        self.bases: list[Shard] = []
        self.deltas: list[Shard] = []

    def rebuild_bases(self) -> None:
        """Keep the base shards that are fresh enough; the others are read again, with what belongs to them."""
        parents = [shard for shard in self._parent if shard.kind == "base"]
        stay = {shard.shard_id for shard in parents if self._stays(shard)}
        newcomers = self._newcomers({shard.shard_id for shard in parents}, stay)
        used = stay | {shard.shard_id for shard in self._parent if shard.kind == "delta"}
        for shard in parents:
            if shard.shard_id in stay:
                self.bases.append(shard)
                continue
            sections = [*self._held(shard), *newcomers[shard.shard_id]]
            self._release(sections)
            if sum(section.tokens for section in sections) < self._bounds.min_tokens and len(parents) > 1:
                continue  # too little for a shard: it is new again
            for group in grouped(sections, self._bounds):
                rebuilt = Shard(new_shard_id(group[0].document_id, group[0].start, used), "base", tuple(group))
                used.add(rebuilt.shard_id)
                self._hold(rebuilt)
                self.bases.append(rebuilt)

    def sort_out_deltas(self) -> None:
        """Keep the delta shards of whose memory enough is still needed."""
        for shard in self._parent:
            if shard.kind == "base":
                continue
            held = self._held(shard)
            idle = shard.tokens - sum(section.tokens for section in held)
            if held and shard.shard_id not in self._forced and idle <= MOST_IDLE * shard.tokens:
                self.deltas.append(shard)
            else:
                self._release(held)

    def add_what_is_new(self) -> None:
        """Read into delta shards what no memory holds, in order of URI."""
        parents = {shard.shard_id for shard in self._parent}
        used = parents | {shard.shard_id for shard in self.bases}
        for content, section in self._current.items():
            if content in self._holder:
                continue
            if self.deltas and self.deltas[-1].tokens + section.tokens > self._bounds.max_tokens:
                self._close_last()
            if not self.deltas or self.deltas[-1].tokens + section.tokens > self._bounds.max_tokens:
                self.deltas.append(Shard(new_shard_id(section.document_id, section.start, used), "delta", ()))
                used.add(self.deltas[-1].shard_id)
            last = self.deltas.pop()
            longer = replace(last, sections=(*last.sections, section), continues=last.shard_id in parents)
            self._hold(longer)
            self.deltas.append(longer)

    def _close_last(self) -> None:
        """Let a full delta shard be a base shard from now on, if it is as fresh as these have to be."""
        last = self.deltas[-1]
        if stale_tokens(last, self._current) <= self._max_stale * last.tokens:
            self.bases.append(replace(self.deltas.pop(), kind="base"))

    def _stays(self, shard: Shard) -> bool:
        if shard.shard_id in self._forced or not self._held(shard):
            return False
        return stale_tokens(shard, self._current) <= self._max_stale * shard.tokens

    def _held(self, shard: Shard) -> list[ShardSection]:
        """The current sections that the shard holds, each once, in the order of its stream."""
        contents = dict.fromkeys(shard.contents)
        return [self._current[content] for content in contents if self._holder.get(content) == shard.shard_id]

    def _hold(self, shard: Shard) -> None:
        for content in shard.contents:
            if content in self._current:
                self._holder.setdefault(content, shard.shard_id)

    def _release(self, sections: Iterable[ShardSection]) -> None:
        for section in sections:
            self._holder.pop(section.content, None)

    def _newcomers(self, bases: Collection[str], stay: Collection[str]) -> defaultdict[str, list[ShardSection]]:
        """What moves to each base shard that does not stay: sections that no base shard holds, by their home.

        Their home is the base shard that holds the section before them or, for the first ones, after them.
        """
        current = list(self._current.values())
        holders = [self._holder.get(section.content) for section in current]
        home = next((holder for holder in holders if holder in bases), None)
        found: defaultdict[str, list[ShardSection]] = defaultdict(list)
        for section, holder in zip(current, holders, strict=True):
            if holder in bases:
                home = holder
            elif home is not None and home not in stay:
                found[home].append(section)
        for sections in found.values():
            self._release(sections)  # by a delta shard, where it will be idle
        return found

    def _renamed(self, shard: Shard) -> Shard:
        """The shard with the URIs that its sections have now; those that they had are remembered."""
        return replace(shard, continues=False, sections=tuple(self._now(section) for section in shard.sections))

    def _now(self, section: ShardSection) -> ShardSection:
        now = self._current.get(section.content)
        if now is None or now.uri == section.uri:
            return section
        return replace(now, earlier_uris=tuple(uri for uri in section.uris if uri != now.uri))


def _each_text_once(sections: Collection[ShardSection], held: Collection[str]) -> list[ShardSection]:
    """The sections without copies: for each text the one whose content is `held`, otherwise the first."""
    seen = {section.text for section in sections if section.content in held}
    kept = []
    for section in sections:
        if section.content in held or section.text not in seen:
            kept.append(section)
        seen.add(section.text)
    return kept
