from __future__ import annotations

import pytest

from thr_probe.traces.importers.chat import emitted, messages_of, prompt_of, question_of, text_of


def test_a_lone_question_stands_as_it_is():
    assert prompt_of("Q: 1 + 1?") == question_of("Q: 1 + 1?") == "Q: 1 + 1?"
    assert prompt_of([{"role": "user", "content": " 1 + 1?\n"}]) == " 1 + 1?\n"


def test_several_messages_follow_their_roles():
    messages = [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}],
        },
    ]
    assert prompt_of(messages) == "system: Add.\n\nuser: 1 + 1?\n\nassistant: 2\n\nuser: 2 + 2?"
    assert question_of(messages) == "2 + 2?"
    assert question_of(messages[:1]) is None
    assert messages_of(messages)[2:] == [
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2 + 2?"},
    ]
    assert messages_of("1 + 1?") is None


def test_reasoning_comes_first_wherever_it_is_kept():
    assert emitted({"content": "4", "reasoning_content": "add"}) == "<think>add</think>4"
    assert emitted({"content": "4", "reasoning_content": None}) == "4"
    blocks = [{"type": "reasoning", "reasoning": "add"}, {"type": "text", "text": "4"}]
    assert text_of(blocks) == "<think>add</think>4"
    assert text_of(None) == ""


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match="calls tools"):
        emitted({"content": "", "tool_calls": [{"id": "1"}]})
    with pytest.raises(ValueError, match="content of type image_url"):
        text_of([{"type": "image_url", "image_url": {}}])
    with pytest.raises(ValueError, match="JSON int, not text"):
        text_of(3)
