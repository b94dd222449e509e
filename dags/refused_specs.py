"""Shows every corpus spec that is refused as an import error in Airflow, with its file, key, value and fix.

It defines no DAG. It is a separate file because Airflow disables every DAG of a file that has an import error: raised
in `refresh.py` or `jobs.py`, one broken spec would stop the other corpora.
"""

from __future__ import annotations

from pathlib import Path

from memorag_operators.spec_folder import read_spec_folder, spec_folder
from memorag_pipeline.errors import SpecError

_problems = read_spec_folder(spec_folder(Path(__file__).parent / "corpora")).problems
if _problems:
    raise SpecError(_problems)
