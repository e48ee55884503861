"""The brace matcher against a literal one that starts anew at every box."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from thr_probe.problems.boxes import balanced_boxes, joined_boxes, last_boxed

PIECES = [
    "\\boxed{",
    "boxed{",
    "{",
    "}",
    "\\{",
    "\\}",
    "\\\\",
    "a",
    " ",
    "\\frac",
    "unboxed{",
    "\\",
]


def tokens(text: str) -> list[tuple[int, str]]:
    """(position, token); an escaped character is one token unless a box begins there."""
    found = []
    position = 0
    while position < len(text):
        is_escape = text[position] == "\\" and position + 1 < len(text)
        width = 2 if is_escape and not text.startswith("boxed", position + 1) else 1
        found.append((position, text[position : position + width]))
        position += width
    return found


def literal_boxes(text: str) -> list[str]:
    """From every opening on, count braces until they balance: quadratic, and plain to read."""
    everything = tokens(text)
    starts = [position for position, _ in everything]
    contents = []
    for start in starts:
        if not text.startswith("boxed{", start) or text[max(start - 1, 0) : start].isalpha():
            continue
        depth = 0
        for position, token in everything:
            if position < start + len("boxed"):
                continue
            depth += {"{": 1, "}": -1}.get(token, 0)
            if depth == 0:
                contents.append(text[start + len("boxed{") : position])
                break
    return [content for content in contents if content.strip()]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_boxes_equal_those_of_the_literal_matcher(text: str) -> None:
    expected = literal_boxes(text)
    assert [box.content for box in balanced_boxes(text)] == expected
    assert last_boxed(text) == (expected[-1] if expected else None)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(alphabet="{}\\abox d", max_size=60))
def test_any_text_has_boxes_that_lie_within_it(text: str) -> None:
    for box in balanced_boxes(text):
        assert text[box.start : box.end].endswith("}")
        assert box.content in text[box.start : box.end]


def test_a_million_braces_hold_no_box_and_one_box_is_found_among_them() -> None:
    assert last_boxed("\\boxed" + "{" * 1_000_000) is None
    assert last_boxed("\\boxed{" * 150_000) is None
    assert last_boxed("{" * 500_000 + "\\boxed{7}" + "{" * 500_000) == "7"


def test_boxes_join_over_connecting_words_only() -> None:
    assert joined_boxes(r"$\boxed{1}$, \(\boxed{2}\) \quad \text{and} \quad \boxed{3}") == [
        "1",
        "2",
        "3",
    ]
    assert joined_boxes(r"\boxed{1}\boxed{2}") == ["1", "2"]
    assert joined_boxes(r"\boxed{1} no no \boxed{2} or \boxed{3}") == ["2", "3"]
    assert joined_boxes(r"\boxed{1 \boxed{2}}") == ["2"]
    assert joined_boxes("nothing") == []
