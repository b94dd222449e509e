"""Tokens of conversations in which texts from outside stay plain text.

In:  a model's folder with tokenizer.json and, if it is a chat model, a chat template.
Out: token ids of text, and of a conversation around the holes for such texts.
Wrong: no tokenizer.json, or a template that drops its input: an error that names the folder.

Without torch, so that tokens can be counted where no model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from memorag_pipeline.errors import MemoragError, NotFoundError
from memorag_pipeline.models.thoughts import MARKS, opens_thought

HOLE = "[[memorag:hole]]"
# Some templates print today's date, which would change the stream each day; they get this one instead.
_DATE = "01 Jan 2025"


class ChatTokenizer:
    """A model's tokenizer. Special tokens come only from its chat template, never from a text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._plain = _open(folder, all_special=True)
        self._plain.encode_special_tokens = True
        self._marked = _open(folder)

    def plain(self, text: str) -> list[int]:
        """Tokens of a text; the name of a special or an added token in it is plain characters."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, without special ones except those that mark a thought."""
        kept: list[str] = []
        rest: list[int] = []
        for token in token_ids:
            if token in self._thought_marks:
                kept += [self._marked.decode(rest, skip_special_tokens=True), self._thought_marks[token]]
                rest = []
            else:
                rest.append(token)
        return "".join([*kept, self._marked.decode(rest, skip_special_tokens=True)])

    def frame(self, messages: Sequence[dict[str, str]], reply: bool = True) -> list[list[int]]:
        """The conversation's tokens, split at each HOLE in its messages: one piece more than holes.

        Messages are {"role", "content"} in order; `reply` opens the assistant's next turn. A model without a chat
        template gets the contents as paragraphs.
        """
        holes = sum(message["content"].count(HOLE) for message in messages)
        templated = bool(self._template.chat_template)
        rendered = self._render(messages, reply) if templated else _paragraphs(messages, reply)
        pieces = rendered.split(HOLE)
        if len(pieces) != holes + 1:
            raise MemoragError(left_out(str(self.folder), len(pieces) - 1, holes))
        # A template writes the tokens that begin a text; without a template the tokenizer adds them.
        first = self._marked.encode(pieces[0], add_special_tokens=not templated).ids
        return [first, *(self._marked.encode(piece, add_special_tokens=False).ids for piece in pieces[1:])]

    def request(self, user: str, system: str | None = None) -> list[int]:
        """Tokens of a single request, up to the beginning of the model's reply."""
        texts = [text for text in (system, user) if text is not None]
        roles = ["system", "user"] if system is not None else ["user"]
        pieces = self.frame([{"role": role, "content": HOLE} for role in roles])
        ids = pieces[0]
        for text, piece in zip(texts, pieces[1:], strict=True):
            ids = ids + self.plain(text) + piece
        return ids

    @cached_property
    def turn_end(self) -> int | None:
        """The special token with which the template ends the assistant's turn, if any."""
        if not self._template.chat_template:
            return None
        after = self.frame([{"role": "user", "content": "?"}, {"role": "assistant", "content": HOLE}], reply=False)[1]
        added = self._marked.get_added_tokens_decoder()
        return after[0] if after and after[0] in added and added[after[0]].special else None

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the template ends the prompt within a thought, so a reply begins in it."""
        return bool(self._template.chat_template) and opens_thought(
            self._render([{"role": "user", "content": HOLE}], reply=True).rpartition(HOLE)[2]
        )

    @cached_property
    def _thought_marks(self) -> dict[int, str]:
        """Special tokens that begin or end a thought; other such marks are in the text anyway."""
        added = self._marked.get_added_tokens_decoder().items()
        return {number: token.content for number, token in added if token.special and MARKS.fullmatch(token.content)}

    @cached_property
    def _template(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)

    def _render(self, messages: Sequence[dict[str, str]], reply: bool) -> str:
        from jinja2 import TemplateError

        def render(conversation: Sequence[dict[str, str]]) -> str:
            text: str = self._template.apply_chat_template(
                list(conversation),
                tokenize=False,
                add_generation_prompt=reply,
                date_string=_DATE,
                enable_thinking=False,
            )
            return text

        try:
            return render(messages)
        except TemplateError:
            if messages[0]["role"] != "system":
                raise
        # Some models have no system turn: its text precedes the user's.
        system, user, *rest = messages
        return render([{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *rest])


def left_out(where: str, shown: int, given: int) -> str:
    """The error of a chat template that drops a part of its input."""
    return (
        f"{where}: the chat template shows {shown} of {given} texts that it was given;"
        " use a model whose template keeps every message"
    )


def _open(folder: Path, all_special: bool = False) -> Tokenizer:
    """The tokenizer; with `all_special`, marks added to a vocabulary, such as <think>, are special tokens, too."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise NotFoundError(
            f"{folder}: there is no tokenizer.json; make it once with transformers:"
            " AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    tokenizer = Tokenizer.from_file(str(path))
    if all_special:
        added = [token for token in tokenizer.get_added_tokens_decoder().values() if token.content.strip()]
        tokenizer.add_special_tokens([AddedToken(token.content, special=True, normalized=False) for token in added])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _paragraphs(messages: Sequence[dict[str, str]], reply: bool) -> str:
    text = "\n\n".join(message["content"] for message in messages)
    return f"{text}\n\n" if reply else text
