"""The pictures of the README: the page of the demo's corpus in Airflow's UI, and the report of its second refresh.

In:  what `make demo` left in `.memorag`; the programs `chromium` and `chromedriver`.
Out: `docs/images/report.png` and `docs/images/corpus.png`.
Wrong: without the demo's store, or without a browser, it exits with what is missing.

Run it as `make screenshots`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from infra.airflow_local import REPOSITORY, LocalAirflow
from tests.fixtures.browser import BrowserMissing, chromium, element, in_frame, save_picture, text, wait
from tests.fixtures.ports import free_port

CORPUS = "python_reference"
IMAGES = REPOSITORY / "docs" / "images"
SIZE = (1200, 800)  # pixels
PATIENCE = 600.0  # seconds for the start of Airflow and for a page: a busy machine is slow
PAUSED = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"}  # nothing runs while pictures are taken


def main() -> None:
    """Start Airflow over the demo's store, take the pictures, stop it."""
    store = REPOSITORY / ".memorag" / "store" / CORPUS
    if not (store / "versions").exists():
        sys.exit(f"{store} holds no version; run make demo first")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        stack = LocalAirflow(home / "airflow", free_port(), PAUSED)
        try:
            with chromium(home / "chromium", *SIZE) as browser:
                browser.set_page_load_timeout(PATIENCE)
                take_report(browser, home / "report.html")
                stack.start(PATIENCE)
                take_corpus(browser, stack.url)
        except BrowserMissing as missing:
            sys.exit(str(missing))
        finally:
            stack.stop()


def take_report(browser: Any, page: Path) -> None:
    """The report of the refresh that read the demo's edit: what a window of this size shows."""
    spec = REPOSITORY / "dags" / "corpora" / f"{CORPUS}.yaml"
    code = "from memorag_pipeline.cli.app import main; main()"
    subprocess.run([sys.executable, "-c", code, "report", str(spec), "2", "--out", str(page)], check=True)
    browser.get(page.as_uri())
    save_picture(browser, IMAGES / "report.png")


def take_corpus(browser: Any, url: str) -> None:
    """The page of the corpus in the frame of Airflow's UI."""
    browser.get(f"{url}/plugin/corpora")
    in_frame(browser)
    element(browser, f"a[href='{CORPUS}/']").click()
    wait(browser, lambda: "Versions" in text(browser))
    browser.switch_to.default_content()
    save_picture(browser, IMAGES / "corpus.png")


if __name__ == "__main__":
    main()
