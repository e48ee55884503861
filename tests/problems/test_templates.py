"""The exact layout of every prompt template."""

from __future__ import annotations

import pytest

from thr_probe.errors import UsageError
from thr_probe.lab import prompt_text
from thr_probe.problems import TEMPLATES, render_prompt


class ChatTokenizer:
    """Knows one chat format."""

    chat_template = "yes"

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert (tokenize, add_generation_prompt) == (False, True)
        return "|".join(f"{each['role']}:{each['content']}" for each in messages) + "|assistant:"


class PlainTokenizer:
    """Has no chat format."""

    chat_template = None


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (
            "qwen-boxed",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n1+1?\n"
            "Please reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        ("abel", "Question:\n1+1?\nAnswer:\nLet's think step by step.\n"),
        ("plain", "1+1?"),
        (
            "chat",
            "user:1+1?\nPlease reason step by step, and put your final answer within \\boxed{}."
            "|assistant:",
        ),
        ("lab", prompt_text("1+1?")),
    ],
)
def test_every_template_has_its_layout(template: str, prompt: str) -> None:
    assert render_prompt("1+1?", template, ChatTokenizer()) == prompt


def test_the_table_names_every_template() -> None:
    assert list(TEMPLATES) == ["qwen-boxed", "abel", "plain", "chat", "lab"]


def test_braces_in_a_question_stay() -> None:
    assert "{x} \\frac{1}{2} %s" in render_prompt("{x} \\frac{1}{2} %s", "qwen-boxed")


def test_what_cannot_be_rendered_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown template 'qwen'"):
        render_prompt("q", "qwen")
    with pytest.raises(UsageError, match="needs the policy's tokenizer"):
        render_prompt("q", "chat")
    with pytest.raises(UsageError, match="no chat template"):
        render_prompt("q", "chat", PlainTokenizer())
