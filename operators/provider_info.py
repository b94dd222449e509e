"""The description of this package for Airflow's provider manager (entry point `apache_airflow_provider`)."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Provider metadata, as `airflow providers list` shows it. Airflow adds the package's own version."""
    return {
        "package-name": "memorag-pipeline",
        "name": "MemoRAG pipeline",
        "description": "Versioned memories of a corpus in object storage, and answers from them in bulk.",
        "integrations": [{"integration-name": "MemoRAG pipeline", "external-doc-url": "", "tags": ["software"]}],
        "operators": [
            {
                "integration-name": "MemoRAG pipeline",
                "python-modules": [
                    "memorag_operators.refresh",
                    "memorag_operators.answers",
                    "memorag_operators.summaries",
                    "memorag_operators.training",
                    "memorag_operators.maintenance",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": "MemoRAG pipeline",
                "python-modules": ["memorag_operators.batch_trigger", "memorag_operators.watcher"],
            }
        ],
    }
