"""A question and its completions in the terminal, every token coloured by one of its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from rich.style import Style
from rich.text import Text

from thr_probe.report.tokens.pieces import Piece, printable, visible
from thr_probe.report.tokens.show_data import ShownCompletion, ShownQuestion

_POSITIVE = ((222, 236, 246), (158, 202, 233), (86, 160, 211), (0, 114, 178))
_NEGATIVE = ((252, 233, 220), (246, 196, 160), (232, 142, 84), (213, 94, 0))
_BLACK, _WHITE = "#000000", "#ffffff"
_SATURATION = 0.95
"""Quantile of |value| over what is shown from which on the colour is full."""
_MARKED_SHARE = 0.8
"""Without colour, entropy and log-probability mark what lies beyond this quantile."""
SIGNED = {"thr": "THR", "thr-tau": "THR over tau", "advantage": "advantage under THR(p)"}
_UNSIGNED = {"entropy": "entropy", "logprob": "surprise, -log pi"}
_MARKS = {1: ("⟦", "⟧"), -1: ("⟪", "⟫"), 0: ("", "")}
DETAIL_WEIGHTS = "‹{plus:g}|{minus:g}›"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How tokens are shown."""

    by: str = "thr"
    """What colours them."""
    p: float = 0.0
    """Of the advantage under THR(p), and with `with_weights` of the weights."""
    coloured: bool = True
    """Colours and styles; without them, marks around the tokens carry the same."""
    with_weights: bool = False
    """Behind every dominant token its weights at +p and -p, as in the paper's Figure 1."""


def shown(question: ShownQuestion, look: Look) -> Iterator[Text]:
    """The lines to print: question, legend, and every completion with a heading.

    Control characters of the model's text are written as escapes.

    Args:
        question: of `shown_question`.
        look: colours or marks.
    """
    head = Text(f"question {question.prompt_id}", style=_style(look, bold=True))
    if question.num_other_steps:
        head.append(
            f"  (step {question.completions[0].step}, the newest of {question.num_other_steps + 1})"
        )
    yield head
    yield Text(printable(question.question))
    yield Text(f"answer {printable(question.answer)}")
    yield legend(look)
    scale = _scale(question, look)
    for completion in question.completions:
        yield Text("")
        yield _heading(completion, look)
        yield completion_text(completion, look, scale)


def legend(look: Look) -> Text:
    """What colours and marks mean."""
    text = Text("by " + (SIGNED | _UNSIGNED)[look.by] + ": ")
    if look.by in SIGNED:
        for sign, word in ((1, "above 0 (exploitation)"), (-1, "below 0 (exploration)")):
            words = word if look.by != "advantage" else word.split(" (")[0]
            text.append_text(_sample(words, sign, look))
            text.append("  ")
        if look.by != "advantage":
            cue = "bold and underlined" if look.coloured else "the only ones marked"
            text.append(f"dominant tokens, |THR| > tau: {cue}")
            text.append(", below 0 also italic" if look.coloured else "")
    else:
        text.append_text(_sample("high", -1, look))
        text.append("" if look.coloured else "  (the highest fifth of what is shown)")
    if look.with_weights:
        text.append(
            f"  weights at p = {look.p:+g} and {-look.p:+g}: "
            + DETAIL_WEIGHTS.format(plus=1 + look.p, minus=1 - look.p)
        )
    return text


def _sample(words: str, sign: int, look: Look) -> Text:
    if look.coloured:
        return Text(words, style=_cell_style(sign * 1.0, dominant=look.by.startswith("thr")))
    left, right = _MARKS[sign]
    return Text(left + words + right)


def completion_text(completion: ShownCompletion, look: Look, scale: float) -> Text:
    """The pieces of a completion, white space made visible.

    Args:
        completion: what is shown.
        look: colours or marks.
        scale: the |value| from which on the colour is full.
    """
    text = Text(overflow="fold")
    values_N = _values(completion, look)
    for piece in completion.pieces:
        text.append_text(_piece_text(piece, completion, values_N, look, scale))
    return text


def _piece_text(
    piece: Piece,
    completion: ShownCompletion,
    values_N: Float[np.ndarray, " N"],
    look: Look,
    scale: float,
) -> Text:
    inside = slice(piece.first, piece.first + piece.num_tokens)
    value, is_dominant = strongest(values_N[inside]), bool(completion.dominant[inside].any())
    body = visible(piece.text, keep_breaks=True)
    bare = body.rstrip("\n")  # styles and marks end before the line does
    part = Text()
    if look.coloured:
        strength = 0.0 if np.isnan(value) or scale == 0 else float(np.clip(value / scale, -1, 1))
        part.append(bare, style=_cell_style(strength, dominant=is_dominant))
    else:
        left, right = _MARKS[_mark(value, look, scale, dominant=is_dominant)]
        part.append(left + bare + right)
    if look.with_weights and is_dominant:
        sign = float(np.sign(strongest(completion.thr_N[inside])))
        plus, minus = 1 + sign * look.p, 1 - sign * look.p
        part.append(
            DETAIL_WEIGHTS.format(plus=round(plus, 6), minus=round(minus, 6)),
            style=_style(look, dim=True),
        )
    return part.append(body[len(bare) :])


def strongest(value_n: Float[np.ndarray, " n"]) -> float:
    """Of the tokens of a piece the value of largest size; NaN where none is defined."""
    return (
        float("nan") if np.isnan(value_n).all() else float(value_n[np.nanargmax(np.abs(value_n))])
    )


def _values(completion: ShownCompletion, look: Look) -> Float[np.ndarray, " N"]:
    """What colours the tokens; entropy and surprise go towards vermilion, so below 0."""
    values_N = completion.values(look.by, look.p).astype(np.float64)
    return -values_N if look.by == "entropy" else values_N


def _scale(question: ShownQuestion, look: Look) -> float:
    sizes = np.concatenate([np.abs(_values(each, look)) for each in question.completions])
    sizes = sizes[~np.isnan(sizes)]
    if not len(sizes):
        return 0.0
    share = _SATURATION if look.coloured or look.by in SIGNED else _MARKED_SHARE
    return float(np.quantile(sizes, share)) or float(sizes.max())


def _mark(value: float, look: Look, scale: float, *, dominant: bool) -> int:
    """The sign of the marks around a token, 0 for none."""
    if np.isnan(value):
        return 0
    if look.by == "advantage":
        return int(np.sign(value))
    if look.by in SIGNED:
        return int(np.sign(value)) if dominant else 0
    return -1 if scale > 0 and abs(value) > scale else 0


def _cell_style(strength: float, *, dominant: bool) -> Style:
    """Background by sign and size; dominant tokens bold and underlined, below 0 italic too."""
    below = strength < 0
    level = min(int(abs(strength) * 4.999), 4)
    if level == 0:
        return Style(
            bold=dominant or None, underline=dominant or None, italic=(dominant and below) or None
        )
    red, green, blue = (_NEGATIVE if below else _POSITIVE)[level - 1]
    return Style(
        color=_WHITE if level == 4 else _BLACK,
        bgcolor=f"#{red:02x}{green:02x}{blue:02x}",
        bold=dominant or None,
        underline=dominant or None,
        italic=(dominant and below) or None,
    )


def _style(look: Look, *, bold: bool = False, dim: bool = False) -> Style:
    return Style(bold=bold or None, dim=dim or None) if look.coloured else Style()


def _heading(completion: ShownCompletion, look: Look) -> Text:
    label = "correct" if completion.correct else "incorrect"
    text = Text(f"rollout {completion.rollout_id}: {label}", style=_style(look, bold=True))
    text.append(f", {len(completion.token_ids):,} tokens, advantage {completion.advantage:+.3g}")
    if np.isnan(completion.thr_N).all():
        text.append(", THR undefined: no completion of the question is correct")
    else:
        text.append(f", tau {completion.tau:.3g}, {completion.dominant.mean():.0%} dominant")
        text.append(" (tau of 0 or below keeps all)" if completion.tau <= 0 else "")
    answer = "none" if completion.extracted is None else printable(completion.extracted)
    return text.append(f", answer found: {answer}")
