"""YAML within bounds: refuses what a spec never needs, such as aliases that expand to millions of values.

In:  the text of a YAML file.
Out: its root node, and plain values made from it. Keys are texts as written: `on:` is "on", `5:` is "5".
Wrong: `yaml.YAMLError` for what is not YAML; `OutOfBoundsError`, with the line, for too much depth, too many values, an
       alias of an enclosing node, a tag, an invalid character.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

DEEPEST = 32
MOST_NODES = 10_000  # values behind aliases are counted each time; PyYAML reads this many in half a second
_LONGEST_KEY = 256
_LONGEST_NUMBER = 64
_BAD_CHARACTER = re.compile("[\0\ud800-\udfff]")
_TEXT, _DATE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp"


class OutOfBoundsError(yaml.MarkedYAMLError):
    """A file that is YAML, but not allowed in a spec; `note` says what to do."""


class BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with bounds."""

    # A spec has no dates: 2026-01-01 is a text, such as a name.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._deepest = self._nodes = 0
        self._anchored: dict[str, tuple[int, int]] = {}  # nodes and depth of the node behind an alias

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node. Raises YAMLError where a bound is passed."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML has no types for it
        self._depth += 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchored:
                raise _refused(
                    "has an alias (*name) without an anchor before it, or inside its own anchor",
                    "put a text that begins with * in quotes",
                    event,
                )
            nodes, depth = self._anchored[event.anchor]
            self._count(nodes, depth, event)
            node = super().compose_node(parent, index)
        else:
            if event.tag not in (None, _TEXT):
                raise _refused(
                    "has a tag (!name), which no value needs", "put a text that begins with ! in quotes", event
                )
            nodes, outside, self._deepest = self._nodes, self._deepest, self._depth
            self._count(1, 0, event)
            node = super().compose_node(parent, index)
            if event.anchor is not None:
                self._anchored[event.anchor] = self._nodes - nodes, self._deepest - self._depth
            self._deepest = max(outside, self._deepest)
        self._depth -= 1
        if isinstance(parent, yaml.MappingNode) and index is None:
            _check_key(node, event)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """A text or number; what is too long for a number is a text."""
        node = super().compose_scalar_node(anchor)
        if bad := _BAD_CHARACTER.search(node.value):
            raise _refused(bad_character(bad[0]), "write it without", node)
        if len(node.value) > _LONGEST_NUMBER:
            node.tag = _TEXT
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys are texts."""
        if isinstance(node, yaml.MappingNode):
            self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep) for key, value in node.value}

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; what only looks like a number is refused."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise _refused("looks like a number but is not one", "put a text in quotes", node) from error

    def _count(self, nodes: int, depth: int, event: yaml.Event) -> None:
        self._nodes += nodes
        self._deepest = max(self._deepest, self._depth + depth)
        if self._nodes > MOST_NODES:
            raise _refused(
                f"has more than {MOST_NODES:,} values, counting those that aliases stand for",
                "put lists that long into patterns",
                event,
            )
        if self._deepest > DEEPEST:
            raise _refused(f"is nested more than {DEEPEST} deep", "no key of a spec is that deep", event)


def bad_character(character: str) -> str:
    """The problem of a text that holds half of a surrogate pair or a null character."""
    return f"contains the character U+{ord(character):04X}, which no text may hold"


def without_bad_characters(text: str) -> tuple[str, str | None]:
    """`text` with such characters replaced, and the first that it had."""
    bad = _BAD_CHARACTER.search(text)
    return (_BAD_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", text), bad[0]) if bad else (text, None)


def _refused(problem: str, fix: str, at: Any) -> OutOfBoundsError:
    return OutOfBoundsError(problem=problem, problem_mark=at.start_mark, note=fix)


def _check_key(node: yaml.Node | None, event: yaml.Event) -> None:
    if not isinstance(node, yaml.ScalarNode):
        raise _refused("has a key that is a list or a mapping", "make it a text", event)
    if len(node.value) > _LONGEST_KEY:
        raise _refused(f"has a key of more than {_LONGEST_KEY} characters", "a key of a spec is a short name", event)
