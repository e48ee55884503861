"""Where in a completion the answer is looked for, and in which order."""

from __future__ import annotations

import pytest

from thr_probe.problems import extract_answer
from thr_probe.problems.extract import gold_text

CASES = [
    # the last balanced box, before anything else
    (r"The answer is 5. So \boxed{7}.", "7"),
    (r"\boxed{1} then \boxed{2}", "2"),
    (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
    (r"\boxed{3} or \boxed{4", "3"),
    (r"\boxed{3}. Put it in \boxed{}.", "3"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\\boxed{\\frac{1}{2}}", r"\\frac{1}{2}"),
    # nothing behind an end token counts
    (r"\boxed{1}<|im_end|>\boxed{2}", "1"),
    ("The answer is 3.</s> The answer is 4.", "3"),
    ("<|endoftext|>The answer is 4.", None),
    ("It is 2/3. <|im_start|>user 77", "2/3"),
    (r"<|im_start|>think ... <|im_start|>answer \boxed{8}", "8"),
    # phrases, in their order
    ("The final answer is $12$. I hope it is correct. The answer is 3.", "12"),
    ("Final Answer: The final answer is 5040. I hope it is correct.", "5040"),
    ("So the answer is 18 dollars. Then 5 more.", "18 dollars"),
    ("The answer is $x = 5$ apples.", "x = 5"),
    ("The answer is $12$ and $13$.", "12, 13"),
    ("The answer is: **42**", "42"),
    ("The answer is therefore given by the sum, 42 in all.", "42"),
    ("The largest is found. The final answer is 34.", "34"),
    ("\u7b54\u6848\u662f 17\u3002", "17"),
    ("FINAL ANSWER:\n<answer>\n104\n</answer>", "104"),
    ("5 + 6 = 11\n#### 11", "11"),
    ("#### Step 2\nso 3 of the 5 remain", "5"),
    ("Answer: B", "B"),
    # a text that is only an answer
    ("x^2 + 1", "x^2 + 1"),
    (r"\frac{1}{2}", r"\frac{1}{2}"),
    ("Evelyn", "Evelyn"),
    ("125 miles", "125 miles"),
    # the last formula or number
    ("We see that $x \\ge 5$ is the solution.", "x \\ge 5"),
    ("We see that $x = 5$ and so there are 15 of them.", "15"),
    ("so they have 1,250 apples", "1250"),
    ("then 3 - 5 leaves -2", "-2"),
    ("It costs $5 and $6 more", "6"),
    ("They took 28 % of it all", "28 %"),
    # nothing
    ("", None),
    ("I do not know what to say about this.", None),
]


@pytest.mark.parametrize(("completion", "answer"), CASES)
def test_the_answer_is_found_where_it_stands(completion: str, answer: str | None) -> None:
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("42", "42"),
        ("$42$", "42"),
        ("work\n#### 1,200", "1,200"),
        (r"so \boxed{5}", "5"),
        (r"\boxed{1} papers and \boxed{2} bins", "1, 2"),
        (r"\boxed{1} then, after some more words, \boxed{2}", "2"),
        (r"\boxed{}", ""),
        ("####", ""),
        (" ", ""),
    ],
)
def test_the_gold_is_found_in_what_the_source_publishes(gold: str, text: str) -> None:
    assert gold_text(gold) == text


def test_long_hostile_texts_are_read_through() -> None:
    assert extract_answer("\x00" * 1_000_000) is None
    assert extract_answer("$" * 500_000) is None
    assert extract_answer("\\[" * 300_000) is None
    assert extract_answer("he answer is " * 50_000) is None
    assert extract_answer("7" * 100_000) == "7" * 100_000
