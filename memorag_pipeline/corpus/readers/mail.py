"""Mail: a message with its header, the text of its body and the names of attachments. Saved pages, too.

In:  the bytes of a message (EML), of a mailbox (mbox) or of a saved page (MHT, MHTML).
Out: its text and its subject; of a page, its text as Markdown and its title.
Wrong: an encrypted message: `Refused("password")`; messages nested too deep: `Refused("bomb")`.

Of alternative bodies, the HTML one is read, as it has the structure that the sender saw; else the plain one. Text
attachments are read below their name, forwarded messages as messages; other attachments are named with type and size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser

from memorag_pipeline.corpus.decoding import decode
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.html import read_html

MAIL, MAILBOX, SAVED_PAGE = "message/rfc822", "application/mbox", "multipart/related"
_SHOWN = ("From", "Sender", "Reply-To", "To", "Cc", "Date", "Subject")
_FIELD = re.compile(rb"[!-9;-~]+:[ \t\r\n]|[!-9;-~]+:\S")
_IS_MAIL = re.compile(rb"^(?:mime-version|message-id|received|return-path|delivered-to):", re.I | re.M)
_IS_PAGE = re.compile(rb"^(?:snapshot-content-location:|from: <saved\b|content-type:\s*multipart/related)", re.I | re.M)
_FROM_LINE = re.compile(rb"^From (?![0-9a-f]{40} )[^\r\n]*\d{4}[^\r\n]*\r?\n(?=[!-9;-~]+:)", re.M)
_PATCHES = {".patch", ".diff"}  # are formatted as mail, but are read as text
_DEPTH = 10  # messages within messages
_TEXT = ("text/plain", "text/html")
_ENCRYPTED = {"multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"}


def mail_type(suffix: str, data: bytes) -> str | None:
    """The media type of mail, a mailbox or a saved page, by its header; the name by itself does not decide."""
    start = data[:65536].lstrip(b"\xef\xbb\xbf\r\n\t ")
    if suffix in {".mbox", ".mbx"} and _FROM_LINE.match(start):
        return MAILBOX
    if start.startswith(b"From "):
        start = start.partition(b"\n")[2] if _FROM_LINE.match(start) else b""
    header = re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0]
    lines = header.splitlines()
    if not lines or not all(line[:1] in {b" ", b"\t"} or _FIELD.match(line + b"\n") for line in lines):
        return None
    if suffix in {".mht", ".mhtml"} and _IS_PAGE.search(header + b"\n"):
        return SAVED_PAGE
    has_from = re.search(rb"^from:", header, re.I | re.M) is not None
    if has_from and _IS_PAGE.match(header) and not re.search(rb"^(?:to|received|message-id):", header, re.I | re.M):
        return SAVED_PAGE
    if suffix in {".eml", ".mht", ".mhtml"} or (has_from and suffix not in _PATCHES and _IS_MAIL.search(header)):
        return MAIL
    return None


def read_mail(data: bytes) -> tuple[str, str | None]:
    """The text of a message and its subject."""
    message = _message(data)
    return "\n\n".join(_parts(message, 0)), _header(message, "Subject") or None


def read_mailbox(data: bytes) -> tuple[str, str | None]:
    """The text of all messages of a mailbox, each below a line of dashes."""
    starts = [match.start() for match in _FROM_LINE.finditer(data)]
    messages = [data[start:end].partition(b"\n")[2] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    texts = (read_mail(re.sub(rb"^>(>*From )", rb"\1", message, flags=re.M))[0] for message in messages)
    return f"\n\n{'-' * 20}\n\n".join(texts), None


def read_saved_page(data: bytes) -> tuple[str, str | None]:
    """The text of a saved page and its title."""
    message = _message(data)
    pages = [part for part in message.walk() if part.get_content_type() in {"text/html", "application/xhtml+xml"}]
    first = (message.get_param("start") or "") if message.is_multipart() else ""
    pages.sort(key=lambda part: not first or part.get("Content-ID", "") != first)
    title = None
    for page in pages:  # the first with words; a frameset has none itself
        text, found = read_html(_content(page))
        title = title or found
        if text.strip():
            return text, title or _header(message, "Subject") or None
    return "\n\n".join(_parts(message, 0)), title or _header(message, "Subject") or None


def _message(data: bytes) -> EmailMessage:
    data = data.lstrip(b"\xef\xbb\xbf\r\n\t ")
    if data.startswith(b"From "):
        data = data.partition(b"\n")[2]
    return BytesParser(EmailMessage, policy=policy.default).parsebytes(data)


def _parts(message: EmailMessage, depth: int) -> Iterator[str]:
    """The header, the body and the attachments of a message."""
    if depth > _DEPTH:
        raise Refused("bomb", f"has messages within messages more than {_DEPTH} deep")
    lines = [f"{name}: {words}" for name in _SHOWN if (words := _header(message, name))]
    if lines:
        yield "\n".join(lines)
    yield from _body(message, depth)


def _body(part: EmailMessage, depth: int) -> Iterator[str]:
    kind = part.get_content_type()
    if kind == "multipart/encrypted" or (kind in _ENCRYPTED and part.get_param("smime-type") != "signed-data"):
        raise Refused("password", "is an encrypted mail")
    if kind == "message/rfc822" or (kind == "message/global" and part.is_multipart()):
        inner = part.get_payload(0) if part.is_multipart() else None
        if isinstance(inner, EmailMessage):
            yield "[forwarded message]"
            yield from _parts(inner, depth + 1)
    elif kind == "multipart/alternative":
        yield from _alternative(part, depth)
    elif part.is_multipart():
        for inner in part.iter_parts():
            yield from _body(inner, depth)  # type: ignore[arg-type]
    else:
        yield from _leaf(part, kind)


def _alternative(part: EmailMessage, depth: int) -> Iterator[str]:
    """The best form of a body, and other parts with it, such as an invitation."""
    forms = [form for form in part.iter_parts() if isinstance(form, EmailMessage)]
    found: dict[str, list[str]] = {}
    for form in forms:
        holds = form.get_content_type()
        if form.is_multipart():
            holds = "text/html" if any(each.get_content_type() == "text/html" for each in form.walk()) else "text/plain"
        words = list(_body(form, depth))
        if any(each.strip() for each in words):
            found.setdefault(holds, []).extend(words)
    best = next((kind for kind in ("text/html", "text/plain") if kind in found), None)
    for kind, words in found.items():
        if kind == best or kind not in _TEXT:
            yield from words


def _leaf(part: EmailMessage, kind: str) -> Iterator[str]:
    # A multipart message without parts is read unchanged.
    is_text = kind.startswith(("text/", "multipart/")) or kind == "message/delivery-status"
    name = part.get_filename()
    if name or part.get_content_disposition() == "attachment" or not is_text:
        payload = part.get_payload(decode=True)
        size = len(payload) if isinstance(payload, bytes) else 0
        if kind.startswith("image/") and part.get("Content-ID") and part.get_content_disposition() != "attachment":
            return  # a picture displayed in the body, which has its words there
        told = f"{_one_line(name or 'without a name')}, {kind}, {size:,} bytes"
        if not is_text or not size:
            yield f"[attachment: {told}, not read]"
            return
        yield f"[attachment: {told}]"
    content = _content(part)
    text = read_html(content)[0] if kind == "text/html" else content
    if text.strip():
        yield text.strip("\n")


def _content(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    charset = part.get_content_charset()
    if charset is None and part.get_content_type() == "text/html":
        found = re.search(rb"charset\s*=\s*[\"']?([\w-]+)", payload[:2048])
        charset = found[1].decode("ascii") if found else None
    try:
        return decode(payload, declared=charset)
    except Refused:
        return payload.decode("utf-8", "replace")


def _header(message: EmailMessage, name: str) -> str:
    """A header field on one line; bytes without a declared encoding are decoded like those of a text."""
    try:
        value = str(message.get(name, ""))
    except (ValueError, TypeError, IndexError, AttributeError):  # fields that the standard library cannot parse
        value = next((raw for key, raw in message.raw_items() if key.lower() == name.lower()), "")
    if "\ufffd" in value or any("\udc80" <= sign <= "\udcff" for sign in value):
        raw = next((raw for key, raw in message.raw_items() if key.lower() == name.lower()), "")
        value = decode(str(raw).encode("ascii", "surrogateescape")) if "=?" not in raw else value
    return _one_line(value.encode("utf-8", "replace").decode())


def _one_line(text: str) -> str:
    return " ".join(text.split())
