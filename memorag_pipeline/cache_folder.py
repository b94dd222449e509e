"""The local folder for what may be fetched or made again: `MEMORAG_CACHE`, else the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder of all local caches: MEMORAG_CACHE, else XDG_CACHE_HOME/memorag, else ~/.cache/memorag."""
    if configured := os.environ.get("MEMORAG_CACHE"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memorag"
