"""The answer inside a completion, and the answer inside a gold."""

from __future__ import annotations

import re

from thr_probe.problems.boxes import joined_boxes, last_boxed
from thr_probe.problems.prose import is_bare_answer, math_segments, phrase_answer

END_TOKENS = (
    "</s>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_start|>user",
    "<|im_start|>system",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<eos>",
)
TAIL = 4000
"""Characters from the end that are searched for formulas and cues when nothing is boxed."""

_END = re.compile("|".join(map(re.escape, END_TOKENS)))
_HOPE = re.compile(r"final answer is:?\s*(.{1,400}?)\.?\s*I hope", re.IGNORECASE | re.DOTALL)
_CUES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"<answer>(?=[\s\S]*</answer>)",
        r"####(?=[^\n#]*\s*\Z)",
        r"he answer is",
        r"final answer is",
        "答案是",
        r"(?:final answer|answer)\W{0,6}:",
    )
)
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}.])[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?(?:/\d+(?!\d|\.\d))?|\.\d+)"
    r"(?:\s?\\?%)?"
)
_GSM8K = re.compile(r"####\s*([^\n#]*)\s*\Z")


def extract_answer(completion: str) -> str | None:
    r"""The answer a completion gives; None where it gives none.

    In this order: the last balanced, non-blank \boxed{...}; "final answer is ... I hope"; the
    phrase behind the last "<answer>", a closing "####", "he answer is", "final answer is",
    "答案是" ("the answer is"), "answer:"; the whole text where it is nothing but an answer; the
    last formula or number, whichever ends later.
    Everything from an end token on is cut off first.

    >>> extract_answer(r"So \boxed{\frac{1}{2}}.<|im_end|> \boxed{9}")
    '\\frac{1}{2}'
    >>> extract_answer("The answer is 1,250 dollars.")
    '1,250 dollars'
    >>> extract_answer("First 3, then 4 more: 7 apples")
    '7'
    """
    text = _END.split(completion, maxsplit=1)[0]
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed.strip()
    tail = text[-TAIL:]
    return _cued(tail) or _bare(text) or _last_formula(tail) or _last_number(text)


def answer_parts(completion: str) -> list[str]:
    """The parts of an answer given in several boxes; one part or none otherwise."""
    return joined_boxes(_END.split(completion, maxsplit=1)[0])


def gold_text(answer: str) -> str:
    r"""The answer inside a gold that may be a whole solution: its boxes, or what follows "####".

    >>> gold_text(r"We get \boxed{1} and \boxed{2}."), gold_text("3 + 4 = 7\n#### 7")
    ('1, 2', '7')
    """
    parts = joined_boxes(answer)
    if parts:
        return ", ".join(part.strip() for part in parts)
    marked = _GSM8K.findall(answer)
    if marked:
        return str(marked[-1]).strip()
    if "boxed{" in answer:
        # an unclosed box still says where the answer starts; an empty one holds nothing
        return answer.rpartition("boxed{")[2].strip(" }$\n")
    return answer.strip().strip("$").strip()


def _cued(tail: str) -> str | None:
    hopes = _HOPE.findall(tail)
    if hopes:
        answer = phrase_answer(hopes[-1])
        if answer:
            return answer
    for cue in _CUES:
        ends = [match.end() for match in cue.finditer(tail)]
        answer = phrase_answer(tail[ends[-1] :]) if ends else None
        if answer:
            return answer
    return None


def _bare(text: str) -> str | None:
    bare = text.strip()
    return bare if is_bare_answer(bare) else None


def _last_formula(tail: str) -> str | None:
    segments = math_segments(tail)
    if not segments:
        return None
    end, content = segments[-1]
    numbers = list(_NUMBER.finditer(tail))
    if numbers and numbers[-1].end() > end:
        return None
    return content


def _last_number(text: str) -> str | None:
    numbers = _NUMBER.findall(text)
    return str(numbers[-1]).replace(",", "") if numbers else None
