"""Whether there is an Airflow deployment here; importing Airflow where there is none would create one at home.

In:  the environment variables AIRFLOW_HOME, AIRFLOW_CONFIG and AIRFLOW__DATABASE__SQL_ALCHEMY_CONN….
Out: what is missing, for a message; None if there is a deployment.
"""

from __future__ import annotations

import os
from pathlib import Path


def deployment_problem() -> str | None:
    """Why there is no deployment here, and what to do."""
    home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
    config = Path(os.environ.get("AIRFLOW_CONFIG", home / "airflow.cfg")).expanduser()
    named = any(name.startswith("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN") for name in os.environ)
    if named or config.is_file():
        return None
    return (
        f"there is no Airflow deployment here: no {config}, and AIRFLOW__DATABASE__SQL_ALCHEMY_CONN is not set; set"
        " AIRFLOW_HOME and what else the deployment sets (`make airflow` prints its own settings)"
    )
