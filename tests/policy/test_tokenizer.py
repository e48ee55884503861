"""A policy's tokenizer without its weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from thr_probe.errors import DataError, PrerequisiteError
from thr_probe.importing import Words
from thr_probe.lab import policy_directory
from thr_probe.policy import load_policy, load_tokenizer

TEXT = "two plus 3 is 5, so \\boxed{5}"


def test_it_reads_as_the_policy_does() -> None:
    words, policy = load_tokenizer("lab"), load_policy("lab")
    assert words.digest == policy.tokenizer_digest
    assert words.encode_prompt(TEXT) == policy.encode_prompt(TEXT)
    [ids] = words.encode_completions([TEXT])
    assert words.decode(ids) == policy.decode(ids) == TEXT
    assert words.token_rows(ids) == policy.token_rows(ids)
    assert (words.eos_id,) == policy.eos_ids
    assert words.eos_id in words.special_ids
    assert max(ids) < words.size <= len(policy.head().weight_VD)
    assert isinstance(words, Words)


def test_a_special_token_that_a_text_spells_is_one_id() -> None:
    words = load_tokenizer("lab")
    [ids] = words.encode_completions([TEXT + "<eos>"])
    assert ids[-1] == words.eos_id
    assert words.decode(ids) == TEXT
    assert words.decode(ids, skip_special_tokens=False) == TEXT + "<eos>"


def test_no_texts_give_no_ids() -> None:
    assert load_tokenizer("lab").encode_completions([]) == []
    assert load_tokenizer("lab").encode_completions([""]) == [[]]


CHATML = (
    "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools') }}"
    "{% endif %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ASKED = {"role": "user", "content": "1 + 1?"}


def test_messages_go_through_the_chat_template() -> None:
    words = load_tokenizer("lab")
    assert words.chat_prompt([ASKED]) is None
    words.tokenizer.chat_template = CHATML
    asked = "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert words.chat_prompt([ASKED]) == asked
    assert words.chat_prompt([ASKED, {"role": "assistant", "content": "It is"}]) == f"{asked}It is"
    with pytest.raises(DataError, match="template of lab refuses the messages: no tools"):
        words.chat_prompt([{"role": "tool", "content": "2"}])


def test_a_folder_of_tokenizer_files_is_enough(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(policy_directory() / name, tmp_path)
    assert load_tokenizer(str(tmp_path)).digest == load_tokenizer("lab").digest
    assert load_tokenizer(str(tmp_path / "tokenizer.json")).size == load_tokenizer("lab").size


def test_what_is_no_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tokenizer"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(PrerequisiteError, match="no tokenizer directory at"):
        load_tokenizer(str(tmp_path / "not" / "there"))
