"""Why a document is not in the corpus: the reasons that a quarantine row can have."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "too_large",  # more bytes than source.max_document_mb, or it expands to more than a parser may use
    "empty",  # no text in it; a scanned PDF without a text layer is empty too
    "not_text",  # bytes that are neither text nor a known document format
    "unreadable",  # damaged, or not what its name says
    "password",  # encrypted
    "timeout",  # the parser took longer than source.timeout_seconds
    "crashed",  # the parser's process died
    "download_failed",  # gone, changed or forbidden since it was listed
]

# What the next refresh tries again even if the document is the same: the cause was not in the document.
UNSETTLED = frozenset({"timeout", "download_failed"})


class Refused(Exception):
    """A document that goes to quarantine; `detail` is one line for a person."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = " ".join(detail.split())[:300]
