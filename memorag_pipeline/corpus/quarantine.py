"""Why a document is not in the corpus: the reasons that a quarantine row can have, and what to do about each.

In:  nothing.
Out: the codes of column `reason`, and the text of column `advice` for each.
"""

from __future__ import annotations

from typing import Literal, get_args

Reason = Literal[
    "too_large",  # more than source.max_document_mb or max_extracted_characters, or than the process's memory
    "too_many_pages",  # more pages than source.max_pages
    "bomb",  # unpacks to far more than it is: source.max_expansion, or archives within archives
    "empty",  # no text in it
    "no_text_layer",  # a PDF of pictures
    "not_text",  # neither text nor a known document format
    "archive",  # a ZIP or tar archive of files
    "unreadable",  # damaged, or not what its name says
    "password",  # encrypted
    "bad_record",  # a record of a file of records that is broken, or has the id of another one
    "timeout",  # reading or chunking it took longer than source.timeout_seconds allows
    "crashed",  # the reading process died of it, or the reader failed
    "outside_source",  # a link to a file outside of source.uris
    "download_failed",  # gone, changed or forbidden since it was listed
]
REASONS: tuple[Reason, ...] = get_args(Reason)

_ADVICE: dict[Reason, str] = {
    "too_large": "Split it, or raise the limit that is named, such as source.max_document_mb; or exclude it with"
    " source.exclude.",
    "too_many_pages": "Split it, or raise source.max_pages.",
    "bomb": "Look at where it comes from. If it is genuine, store it unpacked or raise source.max_expansion.",
    "empty": "Nothing to do if it is meant to be empty; exclude it with source.exclude. Else store it again.",
    "no_text_layer": "Run text recognition (OCR) on the scan and store the PDF that it gives.",
    "not_text": "Store it as one of the formats in docs/ingestion.md, or exclude it with source.exclude.",
    "archive": "Unpack it and store the files that are in it.",
    "unreadable": "Open it with the program that it is for. If that fails too, restore it from its origin; if its name"
    " promises another format than it has, rename it.",
    "password": "Store a copy without a password.",
    "bad_record": "Correct the record, or the fields named in source.records.",
    "timeout": "The next refresh tries it again. If it times out each time, split it, remove what is not text (such as"
    " a long run of one sign), raise source.timeout_seconds, or exclude it with source.exclude.",
    "crashed": "Store it again from the program that made it, or in another format.",
    "outside_source": "Store the file itself in place of the link, or add the folder it is in to source.uris.",
    "download_failed": "The next refresh tries it again. If it fails each time, check that it may be read.",
}

# Tried again by the next refresh even if the document is the same: the cause was not in the document.
UNSETTLED = frozenset({"timeout", "download_failed"})


def advice(reason: Reason) -> str:
    """What a person can do about a document that was refused for this reason."""
    return _ADVICE[reason]


class Refused(Exception):
    """A document that is quarantined; `detail` is one line for a person."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = " ".join(detail.split())[:300]
