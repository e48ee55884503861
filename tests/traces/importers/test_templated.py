from __future__ import annotations

import re

import pytest

from thr_probe.problems.templates import qwen_boxed_prompt
from thr_probe.traces.importers.templated import question_in, with_marks

Q = "What is 1+1?\nAnd 2+2?"

PROMPTS = {
    "chatml": f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{Q}<|im_end|>\n"
    "<|im_start|>assistant\n",
    "chatml, stripped": f"system\nBe brief.\nuser\n{Q}\nassistant\n",
    "chatml, stripped, no system": f"user\n{Q}\nassistant\n",
    "chatml, stripped, thinking": f"user\n{Q}\nassistant\n<think>\n",
    "chatml, stripped, no thinking": f"user\n{Q}\nassistant\n<think>\n\n</think>\n\n",
    "chatml, stripped, a shot": f"user\n3?\nassistant\n3\nuser\n{Q}\nassistant\n",
    "llama 3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
    f"{Q}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama 3, stripped": f"system\n\nCutting Knowledge Date: 2023user\n\n{Q}assistant\n\n",
    "gemma": f"<bos><start_of_turn>user\n{Q}<end_of_turn>\n<start_of_turn>model\n",
    "gemma, stripped": f"user\n{Q}\nmodel\n",
    "gpt-oss": f"<|start|>system<|message|>x<|end|><|start|>user<|message|>{Q}<|end|>",
    "deepseek": f"<｜begin▁of▁sentence｜><｜User｜>{Q}<｜Assistant｜><think>\n",
    "phi": f"<|user|>\n{Q}<|end|>\n<|assistant|>\n",
    "zephyr": f"<|user|>\n{Q}</s>\n<|assistant|>\n",
    "glm": f"[gMASK]<sop><|user|>\n{Q}<|assistant|>\n",
    "mistral": f"<s>[INST] {Q} [/INST]",
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_the_question_is_taken_out_of_the_template(prompt):
    assert question_in(prompt) == Q


def test_the_last_question_of_a_conversation_counts():
    turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    assert question_in(turn.format("one?") + "1<|im_end|>\n" + turn.format("two?")) == "two?"


def test_our_own_template_is_recognised():
    assert question_in(qwen_boxed_prompt("How many?")).startswith("How many?\nPlease reason")


@pytest.mark.parametrize(
    "prompt",
    ["Question: What is 1+1?\nAnswer:", "", "user", "the user\nasked\nassistant\nto come", Q],
)
def test_other_prompts_are_left_alone(prompt):
    assert question_in(prompt) is None


WHOLE = {
    "chatml": qwen_boxed_prompt(Q),
    "chatml, no system": f"<|im_start|>user\n{Q}<|im_end|>\n<|im_start|>assistant\n",
    "chatml, thinking": f"<|im_start|>user\n{Q}<|im_end|>\n<|im_start|>assistant\n<think>\n",
    "gemma": f"<bos><start_of_turn>user\n{Q}<end_of_turn>\n<start_of_turn>model\n",
    "llama 3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    f"<|start_header_id|>user<|end_header_id|>\n\n{Q}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
}


@pytest.mark.parametrize("prompt", WHOLE.values(), ids=WHOLE)
def test_special_tokens_that_were_left_out_are_put_back(prompt):
    stripped = re.sub(r"<\|.*?\|>|<bos>|<(start|end)_of_turn>", "", prompt)
    assert stripped != prompt
    assert with_marks(stripped) == prompt


@pytest.mark.parametrize(
    "prompt",
    [
        "Question: What is 1+1?\nAnswer:",
        "",
        f"user\n3?\nassistant\n3\nuser\n{Q}\nassistant\n",
        "user\n\n3?assistant\n\n3user\n\n4?assistant\n\n",
        f"system\nBe brief.\nuser\n{Q}\nmodel\n",
        WHOLE["chatml"],
    ],
)
def test_nothing_is_put_into_other_prompts(prompt):
    assert with_marks(prompt) is None
