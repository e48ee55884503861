"""The user's question inside a prompt that a chat template was applied to."""

from __future__ import annotations

import functools
import re

_MARKED = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"<\|im_start\|>user\n(.*?)<\|im_end\|>",  # ChatML: Qwen and many others
        r"<\|start_header_id\|>user<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>",  # Llama 3
        r"<start_of_turn>user\n(.*?)<end_of_turn>",  # Gemma
        r"<\|start\|>user<\|message\|>(.*?)<\|end\|>",  # gpt-oss
        r"<｜User｜>(.*?)<｜Assistant｜>",  # DeepSeek
        r"<\|user\|>\n?(.*?)(?:<\|end\|>|</s>|<\|assistant\|>)",  # Phi, Zephyr, GLM
        r"\[INST\](.*?)\[/INST\]",  # Mistral, Llama 2
    )
)
"""With the special tokens in the text."""

_THINKING = r"(?:<think>\s*(?:</think>\s*)?)?"
_LINES = re.compile(
    rf"\A(?:system\n.*?\n)?user\n(.*)\n(?:assistant|model)\n{_THINKING}\Z", re.DOTALL
)
"""ChatML or Gemma whose special tokens were left out when the ids were decoded."""
_PARAGRAPHS = re.compile(r"\A(?:system\n\n.*?)?user\n\n(.*)assistant\n\n\Z", re.DOTALL)
"""Llama 3, the same way."""


@functools.lru_cache(maxsize=256)
def question_in(prompt_text: str) -> str | None:
    r"""The last message of the user, without the template; None where no template is recognised.

    Known: ChatML, Llama 3, Gemma, gpt-oss, DeepSeek, Phi, Zephyr, GLM and Mistral; of these ChatML,
    Gemma and Llama 3 also where the special tokens were left out.

    >>> question_in("<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n")
    'What is 1+1?'
    >>> question_in("system\nBe brief.\nuser\nWhat is 1+1?\nassistant\n")
    'What is 1+1?'
    >>> question_in("Question: What is 1+1?\nAnswer:") is None
    True
    """
    for pattern in _MARKED:
        asked = pattern.findall(prompt_text)
        if asked:
            return str(asked[-1]).strip()
    for pattern, again in ((_LINES, "\nuser\n"), (_PARAGRAPHS, "user\n\n")):
        found = pattern.match(prompt_text)
        if found is not None:
            return found[1].rpartition(again)[2].strip()
    return None
