"""The pages of corpora in Airflow's UI, and what it shows of a DAG: a real stack, a real login, headless Chromium.

With MEMORAG_SCREENSHOTS, a folder, pictures of the pages are left there for people to look at.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from tests.fixtures.airflow import WriteSpec
from tests.fixtures.browser import SECONDS, BrowserMissing, chromium, element, in_frame, save_picture, text, wait
from tests.fixtures.changing_corpus import ChangingCorpus, document
from tests.integration.test_full_stack import local_airflow
from tests.integration.test_full_stack import wait as wait_for
from tests.training.conftest import one_thread, tiny, tiny_folder, training_texts, training_values

pytest.importorskip("airflow")
__all__ = ["one_thread", "tiny", "tiny_folder", "training_texts", "training_values"]
pytestmark = pytest.mark.long

PASSWORD = "a-password-of-a-test"


@pytest.fixture
def corpus(changing: ChangingCorpus, write_spec: WriteSpec, tmp_path: Path, run_reports: None) -> Pipeline:
    """A corpus with two versions, a channel, a document in quarantine, and a job that ran."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": "Which rule has the lambda statement?"}) + "\n")
    changing.write("a/broken.md", "\x00\x01\x02\x00")
    pipeline = changing.pipeline(
        generation={"max_new_tokens": 8, "evidence_tokens": 256},
        jobs={
            "faq": {
                "questions": {"uri": str(questions)},
                "warehouse": {"database": str(tmp_path / "warehouse.duckdb")},
                "clue_tokens": 8,
            }
        },
    )
    runner.refresh(pipeline, "first night")
    changing.write("a/00.md", document(0, 8))
    changing.remove("b/01.md")
    runner.refresh(pipeline, "second night")
    pipeline.store.channels.promote("production", 1, by="ada", why="looked at")
    runner.answer(pipeline, "faq")
    write_spec(pipeline.spec, "changing")
    return pipeline


@pytest.fixture
def stack(corpus: Pipeline, tmp_path: Path) -> Iterator[Any]:
    """A running stack that knows one user, who may only look."""
    passwords = tmp_path / "passwords.json"
    passwords.write_text(json.dumps({"ada": PASSWORD}))
    environment = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ada:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
    }
    with local_airflow(tmp_path / "airflow", environment) as running:
        yield running


@pytest.fixture
def training_stack(training_values: dict[str, Any], spec_folder: Path, tmp_path: Path) -> Iterator[Any]:
    """A running stack with the DAG of a training of some seconds, where everybody is admin."""
    (spec_folder / "training").mkdir()
    values = training_values | {"description": "A small adapter for a test."}
    (spec_folder / "training" / "tiny.yaml").write_text(yaml.safe_dump(values))
    with local_airflow(tmp_path / "airflow") as running:
        yield running


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Chromium without a window, as large as a desktop."""
    try:
        with chromium(tmp_path / "chromium") as running:
            yield running
    except BrowserMissing as missing:
        pytest.skip(str(missing))


def test_a_user_who_logged_in_sees_the_corpus_and_nobody_else_does(stack: Any, browser: Any) -> None:
    for path in ("/memorag/", "/memorag/changing/", "/memorag/changing/runs/refresh/x"):
        assert status_of(f"{stack.url}{path}") == 401

    browser.get(f"{stack.url}/plugin/corpora")
    fill(browser, "username", "ada")
    fill(browser, "password", PASSWORD)
    element(browser, "button[type=submit]").click()
    wait(browser, lambda: "/plugin/corpora" in browser.current_url)
    listed = in_frame(browser)
    for expected in ("changing", "newest version", "production \N{RIGHTWARDS ARROW} 1", "published"):
        assert expected in listed
    browser.switch_to.default_content()
    picture(browser, "airflow-corpora.png")
    in_frame(browser)
    element(browser, "a[href='changing/']").click()
    wait(browser, lambda: "Channels" in text(browser))
    page = text(browser)
    for expected in ("production", "looked at", "Versions", "newest version", "Quarantine", "Which rule has the"):
        assert expected in page
    assert browser.find_elements("css selector", "figure svg")
    browser.switch_to.default_content()
    picture(browser, "airflow-corpus.png")

    # The page is the app's own, so it can be looked at without the frame, too.
    browser.get(f"{stack.url}/memorag/changing/")
    picture(browser, "corpus.png", whole=True)
    element(browser, "a[href^='runs/refresh/']").click()
    wait(browser, lambda: "Stages" in text(browser))
    assert "1 modified, 1 removed" in text(browser)
    picture(browser, "report.png", whole=True)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    browser.get(f"{stack.url}/memorag/")
    picture(browser, "corpora-390.png", whole=True)
    for path, name in (("/memorag/changing/", "corpus-390.png"), (None, "report-390.png")):
        if path is None:
            element(browser, "a[href^='runs/refresh/']").click()
            wait(browser, lambda: "Stages" in text(browser))
        else:
            browser.get(f"{stack.url}{path}")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        picture(browser, name, whole=True)


def test_a_training_explains_itself(training_stack: Any, browser: Any) -> None:
    wait_for(training_stack, "the DAG", lambda: training_stack.call("GET", "/api/v2/dags")["total_entries"] == 1)
    page = f"{training_stack.url}/dags/tiny-adapter_train"
    browser.get(page)
    wait(browser, lambda: "promote" in text(browser))
    picture(browser, "training-grid.png")
    element(browser, "body").send_keys("g")
    wait(browser, lambda: browser.find_elements("css selector", ".react-flow__node"))
    picture(browser, "training-graph.png")
    for name, expected in (
        ("Dag Docs", "Trains the adapter tiny-adapter"),
        ("Trigger", "Trigger Dag - tiny-adapter_train"),
    ):
        browser.get(page)
        wait(browser, lambda name=name: button(browser, name).is_enabled())
        button(browser, name).click()
        wait(browser, lambda expected=expected: expected in dialogs(browser))
        picture(browser, f"training-{name.split()[-1].lower()}.png")


def button(browser: Any, name: str) -> Any:
    """The button with a text or label."""
    return browser.find_element("xpath", f"//button[normalize-space(.)='{name}' or @aria-label='{name}']")


def dialogs(browser: Any) -> str:
    """The texts of the dialogs; those that wait to be opened have none."""
    return "\n".join(dialog.text for dialog in browser.find_elements("css selector", "[role=dialog]"))


def status_of(url: str) -> int:
    """The status of the answer to somebody who did not log in."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def fill(browser: Any, name: str, value: str) -> None:
    element(browser, f"input[name={name}]").send_keys(value)


def picture(browser: Any, name: str, whole: bool = False) -> None:
    """Leave a picture, if somebody wants it: of the window, or of the page as far as it goes."""
    if folder := os.environ.get("MEMORAG_SCREENSHOTS"):
        save_picture(browser, Path(folder, name), whole)
