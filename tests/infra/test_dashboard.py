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
# What Prometheus adds when it takes OpenTelemetry: the kind of counters, the unit of timers.
SUFFIXES = {"counter": "_total", "gauge": "", "timer": "_milliseconds"}


def exported(name: str, kind: str) -> str:
    return "airflow_" + re.sub(r"\W", "_", name) + SUFFIXES[kind]


def test_metrics_exist() -> None:
    template = Path(metrics.__path__[0]) / "metrics_template.yaml"
    known = {exported(item["name"], item["type"]) for item in yaml.safe_load(template.read_text())["metrics"]}
    sources = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "operators").glob("*.py"))
    ours = set(re.findall(r"""["'](memorag[.\w]+)["']""", sources))
    known |= {exported(name, kind) for name in ours for kind in SUFFIXES}
    asked = set(re.findall(r"\bairflow_\w+", json.dumps(DASHBOARD)))
    assert len(asked) >= 10
    assert asked <= known


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
