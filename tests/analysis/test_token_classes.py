"""Rules that put tokens into classes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from thr_probe.analysis.reflection import REFLECTION_WORDS
from thr_probe.analysis.token_classes import read_scheme, token_classes
from thr_probe.errors import DataError, UsageError

PAPER = """
given information: present data paper
transformation: conversion transfer equivalent
constraints: relative intersects amount dimensions
decision: determine instead alternating altern others
verification: confirms systematic answer
"""


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("special", ["<eos>", "</s>", "<|im_end|>", "<|endoftext|>"]),
        ("whitespace", [" ", "\n\n", "Ġ", "▁", "Ċ", ""]),
        ("digits", ["7", " 42", "Ġ3", "12,000", "3.5", "²"]),
        ("LaTeX", [" \\boxed{", "\\frac", "frac", "\\", "\\[", "Ġ\\cdot"]),
        ("operators", ["=", " +", "Ġ=", "^", "<=", "×"]),
        ("punctuation", [".", "),", "_{", " (", '"', "'", "}\n", "^{"]),
        ("reflection", ["Wait", " wait", "Ġhowever", "▁But"]),
        ("connectives", [" so", "Therefore", "ĠThen"]),
        ("words", [" triangle", "Triangle", "Ġthe", " don't", "▁Sum"]),
        ("subwords", ["ing", "'s", "angle", "x"]),
        ("other", ["\ufffd", "a1", " x=2"]),
    ],
)
def test_the_lexical_scheme_reads_tokens_as_people_do(name, texts):
    scheme = read_scheme("lexical")
    assert {text: scheme.of(text) for text in texts} == dict.fromkeys(texts, name)


def test_the_reflection_class_is_the_papers_list():
    (found,) = [each for each in read_scheme("lexical").classes if each.name == "reflection"]
    assert found.words == set(REFLECTION_WORDS)


def test_the_paper_scheme_is_appendix_c4():
    listed = dict(re.findall(r"^(.+): (.+)$", PAPER, flags=re.MULTILINE))
    scheme = read_scheme("paper")
    assert {each.name: set(each.words) for each in scheme.classes} == {
        name: set(words.split()) for name, words in listed.items()
    }
    assert (scheme.of("ĠConfirms"), scheme.of(" the")) == ("verification", "unassigned")


def test_every_id_gets_the_class_of_its_text():
    tokens = pd.DataFrame({"token_id": [1, 4], "text": [" 5", " wait"]})
    scheme = read_scheme("lexical")
    classes = token_classes(tokens, scheme)
    assert classes.words_T[classes.of_id_V[1]] == "digits"
    assert classes.words_T[classes.of_id_V[4]] == "reflection"
    with pytest.raises(DataError, match="token id 2 is missing"):
        classes.counted(np.array([1, 2]))


def test_ones_own_scheme_tries_its_classes_in_order(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'rest = "rest"\n[[class]]\nname = "first"\nwords = ["A"]\n'
        '[[class]]\nname = "letters"\npatterns = ["[a-z ]+"]\ntexts = ["A!"]\n'
    )
    scheme = read_scheme(path)
    assert scheme.names == ("first", "letters", "rest")
    assert [scheme.of(text) for text in (" a", " b", "A!", "B")] == [
        "first", "letters", "letters", "rest",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rest = ", "cannot be read as TOML"),
        ('rest = "x"', r"found no \[\[class\]\]"),
        ('classes = 1\n[[class]]\nname = "a"\nwords = ["b"]', "unknown key 'classes'"),
        ('[[class]]\nwords = ["b"]', "a class has no name"),
        ('[[class]]\nname = "a"\nword = ["b"]', "unknown key 'word'"),
        ('[[class]]\nname = "a"', "class 'a' has no rule"),
        ('[[class]]\nname = "a"\nwords = "b"', "words must be a list of strings"),
        ('[[class]]\nname = "a"\npatterns = ["("]', "is no regular expression"),
        ('[[class]]\nname = "other"\nwords = ["b"]', "two classes have one name"),
    ],
)
def test_a_scheme_that_cannot_be_used_is_refused_with_a_sentence(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_scheme(path)


def test_a_scheme_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="choose lexical or paper, or name a"):
        read_scheme("syntactic")
    with pytest.raises(DataError, match="No such file"):
        read_scheme(tmp_path / "none.toml")
