"""Prompts that a chat template was applied to: the question in them, special tokens put back."""

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
    r"\A(?:system\n(?P<system>.*?)\n)?user\n(?P<user>.*)\n(?P<policy>assistant|model)\n"
    rf"(?P<rest>{_THINKING})\Z",
    re.DOTALL,
)
"""ChatML or Gemma whose special tokens were left out when the ids were decoded."""
_PARAGRAPHS = re.compile(
    r"\A(?:system\n\n(?P<system>.*?))?user\n\n(?P<user>.*)assistant\n\n\Z", re.DOTALL
)
"""Llama 3, the same way."""
_CHATML = "<|im_start|>{}\n{}<|im_end|>\n"
_LLAMA = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"


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
            return found["user"].rpartition(again)[2].strip()
    return None


@functools.lru_cache(maxsize=256)
def with_marks(prompt_text: str) -> str | None:
    r"""The prompt with the special tokens put back that were left out when it was decoded.

    Of ChatML, Gemma and Llama 3 prompts of one question, with or without a system message; None
    for any other text.

    >>> with_marks("user\nWhat is 1+1?\nassistant\n")
    '<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n'
    """
    found = _LINES.match(prompt_text)
    if found is not None and "\nuser\n" not in found["user"]:
        if found["policy"] == "assistant":
            begin = "" if found["system"] is None else _CHATML.format("system", found["system"])
            asked = _CHATML.format("user", found["user"])
            return f"{begin}{asked}<|im_start|>assistant\n{found['rest']}"
        if found["system"] is None:
            asked = f"<start_of_turn>user\n{found['user']}<end_of_turn>\n"
            return f"<bos>{asked}<start_of_turn>model\n{found['rest']}"
    found = _PARAGRAPHS.match(prompt_text)
    if found is not None and "user\n\n" not in found["user"]:
        begin = "" if found["system"] is None else _LLAMA.format("system", found["system"])
        asked = _LLAMA.format("user", found["user"])
        policy = "<|start_header_id|>assistant<|end_header_id|>\n\n"
        return f"<|begin_of_text|>{begin}{asked}{policy}"
    return None
