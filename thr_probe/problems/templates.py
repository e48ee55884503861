"""Prompt templates: a question becomes the text the policy continues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from thr_probe.errors import UsageError
from thr_probe.lab import prompt_text as lab_prompt_text

BOXED_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."


def qwen_boxed_prompt(question: str) -> str:
    """ChatML with the instruction in the user's turn (SimpleRL-Zoo's `qwen-boxed`).

    `qwen25-math-cot` has the same words in the system's turn; models behave differently, so the
    two are not mixed.
    """
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{question}\n{BOXED_INSTRUCTION}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def abel_prompt(question: str) -> str:
    """The simple prompt of Abel and SimpleRL-Zoo, for policies that know no chat format."""
    return f"Question:\n{question}\nAnswer:\nLet's think step by step.\n"


def plain_prompt(question: str) -> str:
    """The question and nothing else."""
    return question


def chat_prompt(question: str, tokenizer: Any) -> str:
    """The tokenizer's own chat template, question and boxed instruction as the user's turn."""
    return chat_text([{"role": "user", "content": f"{question}\n{BOXED_INSTRUCTION}"}], tokenizer)


def chat_text(messages: list[dict[str, str]], tokenizer: Any) -> str:
    """Messages through the tokenizer's chat template, up to where the assistant begins."""
    hint = "choose another template: qwen-boxed, abel, plain"
    if tokenizer is None:
        raise UsageError("the template 'chat' needs the policy's tokenizer", hint=hint)
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("this policy's tokenizer has no chat template", hint=hint)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


TEMPLATES: dict[str, Callable[..., str]] = {
    "qwen-boxed": qwen_boxed_prompt,
    "abel": abel_prompt,
    "plain": plain_prompt,
    "chat": chat_prompt,
    "lab": lab_prompt_text,
}
"""Name -> function of the question (`chat` also takes the tokenizer)."""


def render_prompt(question: str, template: str, tokenizer: Any = None) -> str:
    r"""The prompt text of a question in a template of `TEMPLATES`.

    >>> render_prompt("What is 2+2?", "abel")
    "Question:\nWhat is 2+2?\nAnswer:\nLet's think step by step.\n"
    """
    check_template(template)
    if template == "chat":
        return chat_prompt(question, tokenizer)
    return TEMPLATES[template](question)


def check_template(template: str) -> None:
    """Refuse a template that does not exist."""
    if template not in TEMPLATES:
        raise UsageError(f"unknown template {template!r}", hint=f"one of {', '.join(TEMPLATES)}")
