"""Files in a source folder that are not documents: secrets, and files of tools, editors and file systems.

In:  the name of an object, relative to the URI of the source.
Out: whether `source.default_exclude` leaves it out: it, or a folder that it is in, has one of these names.

Office lock files (`~$Report.docx`) are not among them: they are quarantined, because the document that they belong to
may be missing.
"""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache

_VERSIONS = (".git", ".svn", ".hg", ".bzr", ".jj", "CVS", "_darcs", ".git-credentials")
_SECRETS = (
    *(".env", ".env.*", ".envrc", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker"),
    *(".netrc", "_netrc", ".npmrc", ".pypirc", ".pgpass", ".my.cnf", ".htpasswd", ".dockercfg", ".boto", ".s3cfg"),
    *(".vault-token", ".password-store", ".*_history", ".terraform", "*.tfstate", "*.tfstate.*", "*.tfvars"),
)
_TOOLS = (
    *("node_modules", "bower_components", "__pycache__", "*.pyc", ".venv", ".tox", ".nox", ".mypy_cache"),
    *(".pytest_cache", ".ruff_cache", ".ipynb_checkpoints", ".gradle", ".cache", ".eggs", ".idea", ".vscode", ".vs"),
    *("*~", "*.swp", "*.swo", ".~lock.*"),
)
_SYSTEMS = (
    *(".DS_Store", "._*", ".AppleDouble", "__MACOSX", ".Spotlight-V100", ".Trashes", ".fseventsd", ".localized"),
    *("Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
)
CLUTTER: dict[str, tuple[str, ...]] = {
    "version control": _VERSIONS,
    "secrets": _SECRETS,
    "tools and editors": _TOOLS,
    "file systems": _SYSTEMS,
}
_NAMED = re.compile(
    "|".join(translate(pattern) for patterns in CLUTTER.values() for pattern in patterns), re.IGNORECASE | re.DOTALL
)


def is_clutter(name: str) -> bool:
    """Whether a part of the name is one of those in `CLUTTER`, ignoring case."""
    folder, _, last = name.rpartition("/")
    return _NAMED.match(last) is not None or _is_in_clutter(folder)


@lru_cache(1024)  # neighbours in a listing are in the same folder
def _is_in_clutter(folder: str) -> bool:
    return any(_NAMED.match(part) for part in folder.split("/"))
