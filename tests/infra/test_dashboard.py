"""Every metric that the dashboard asks for is one that Airflow or this package sends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.infra.files import INFRA

metrics = pytest.importorskip("airflow._shared.observability.metrics")

DASHBOARD: dict[str, Any] = json.loads((INFRA / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
PAGE = REPOSITORY / "docs" / "scheduling.md"
# What Prometheus adds when it takes OpenTelemetry: the kind of counters, the unit of timers.
SUFFIXES = {"counter": "_total", "gauge": "", "timer": "_milliseconds"}


def exported(name: str, kind: str) -> str:
    return "airflow_" + re.sub(r"\W", "_", name) + SUFFIXES[kind]


def asked() -> set[str]:
    return set(re.findall(r"\bairflow_\w+", json.dumps(DASHBOARD)))


def test_airflow_sends_the_metrics_that_are_not_ours() -> None:
    template = Path(metrics.__path__[0]) / "metrics_template.yaml"
    known = {exported(item["name"], item["type"]) for item in yaml.safe_load(template.read_text())["metrics"]}
    theirs = {name for name in asked() if not name.startswith("airflow_memorag_")}
    assert len(theirs) >= 10
    assert theirs <= known


@pytest.mark.skipif(
    not PAGE.exists(), reason="docs/scheduling.md, which lists the metrics of this package, is not there"
)
def test_our_metrics_are_those_of_the_page() -> None:
    listed = re.findall(r"`(?:memorag\.)?(\w+)`", PAGE.read_text(encoding="utf-8"))
    known = {exported(f"memorag.{name}", kind) for name in listed for kind in SUFFIXES}
    ours = {name for name in asked() if name.startswith("airflow_memorag_")}
    assert ours and ours <= known


def test_panels_have_a_place_a_source_and_a_title_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for place in (panel["gridPos"],)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert {panel["datasource"]["uid"] for panel in panels} == {"${source}"}
