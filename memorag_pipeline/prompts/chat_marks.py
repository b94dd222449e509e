"""The marks with which chat templates begin and end turns, and how they are removed from texts.

In:  a text that goes to an endpoint: questions, passages, drafts, summaries, the user's own prompts.
Out: the text with a round bracket instead of the first bracket of each mark; a text without marks is unchanged.

A server reads a conversation through its model's template, and many read the names of special tokens in a text as these
tokens. The model is unknown, so the marks of all families are broken up, in the plain form of `look_alikes`, because a
server may normalize what it reads. A local model needs no list: see `models.chat`.

Headings in plain words ("### Response:", "USER:") are not treated as marks: too many documents contain them. They are
data, like everything inside a fence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from memorag_pipeline.prompts.look_alikes import seen, with_round_brackets
from memorag_pipeline.prompts.message import Message

# Names between angle brackets, also with a slash before them.
_ANGLE = (
    "s|bos|eos|bos_token|eos_token|pad|unk|sep|eod|eot|eom|eop|sop|gmask"  # begin and end of texts
    "|begin_of_text|end_of_text|beginning_of_sentence|end_of_sentence|im_start|im_end"
    "|start_of_turn|end_of_turn|start_of_image|end_of_image|end_of_utterance"  # Gemma, Idefics
    "|_user|_bot|_system|_end"  # TeleChat
    "|user|assistant|system|human|bot"
    "|tool_call|tool_calls|tool_response|tool_result|function_call|think|thinking|seed:bos|seed:eos|seed:think"
    "|fim_prefix|fim_middle|fim_suffix"
    "|(?:extra_id|unused|reserved|special|reserved_special_token)_?\\d{1,6}"  # Nemotron, Gemma, Baichuan
)
# The same between square brackets: Mistral, Llama 2, GLM, InternLM.
_SQUARE = (
    "inst|system_prompt|available_tools|tool_calls|tool_results|tool_content|call_id|args|model_settings"
    "|img|img_break|img_end|think|gmask|bos|eos|unused_token_\\d{1,6}"
)
_NAME = r"[\w.:-]{1,64}"

# Each alternative begins with one bracket, and looks ahead for the rest.
_MARK = re.compile(
    "|".join(
        (
            rf"<(?=/?\|{_NAME}\|?>)",  # <|im_start|>, <|eot_id|>, <|turn>, DeepSeek's with full-width bars
            rf"<(?=/?{_NAME}\|>)",  # <turn|>
            rf"<(?=/?(?:{_ANGLE})>)",
            r"<(?=<?/?sys>)",  # <<SYS>>
            rf"<(?=\[{_NAME}\]>)",  # <[begin_of_sentence]>
            rf"\[(?=(?P<square>/?(?:{_SQUARE}))\])",
            rf"\[(?=\|{_NAME}\|\])",  # [|user|]
            r"[\[\]](?=(?:~!?b|e~)[\[\]])",  # MiniMax: ]~!b[  ]~b]  [e~[
        )
    )
)


def break_marks(text: str) -> str:
    """The text with every mark of a chat template broken up."""
    if text.isascii() and "<" not in text and "[" not in text and "]" not in text:
        return text
    plain, places = seen(text)
    marks = [found for found in _MARK.finditer(plain) if not _is_an_index(found, text, places)]
    return with_round_brackets(text, {places[found.start()] for found in marks})


def _is_an_index(found: re.Match[str], text: str, places: Sequence[int]) -> bool:
    """Whether a mark in square brackets is in small letters: no template has such, and `x[args]` is everywhere."""
    if found["square"] is None:
        return False
    return text[places[found.start("square")] : places[found.end("square")]].islower()


def break_all(messages: Sequence[Message]) -> list[Message]:
    """A conversation whose texts have no marks."""
    return [{**message, "content": break_marks(message["content"])} for message in messages]
