"""The findings of a run in plain sentences, each with its numbers and what its interval allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from thr_probe.analysis.result import counted
from thr_probe.core.stats import Interval
from thr_probe.report.written import Written

POSITIVE_TAU = "all, tau > 0"
"""The split without groups whose threshold is not positive, which keep every token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One statement of the summary."""

    analysis: str
    """The analysis it is from."""
    text: str
    """One sentence or two."""


Sentences = Callable[[Written], Iterator[str]]


def findings(analyses: Mapping[str, Written]) -> list[Finding]:
    """What the analyses of a run show; an analysis without data says nothing.

    Args:
        analyses: by name.
    """
    return [
        Finding(analysis=name, text=text)
        for name, sentences in _SENTENCES.items()
        if name in analyses and not analyses[name].empty_reason
        for text in sentences(analyses[name])
    ]


def percent(interval: Interval, *, digits: int = 1) -> str:
    """A share with its interval, `12.3 % [11.0, 13.9]`; without bounds where there are none.

    >>> percent(Interval(value=0.123, low=0.11, high=0.139)).replace("\u2009", " ")
    '12.3 % [11.0, 13.9]'
    """
    text = f"{100 * interval.value:.{digits}f}\u2009%"
    if has_bounds(interval):
        text += f" [{100 * interval.low:.{digits}f}, {100 * interval.high:.{digits}f}]"
    return text.replace("-", "−")


def number(interval: Interval) -> str:
    """A value with its interval, three significant digits.

    >>> number(Interval(value=0.8359, low=0.8254, high=0.845))
    '0.836 [0.825, 0.845]'
    """
    text = f"{interval.value:.3g}"
    if has_bounds(interval):
        text += f" [{interval.low:.3g}, {interval.high:.3g}]"
    return text.replace("-", "−")


def has_bounds(interval: Interval) -> bool:
    """Whether there is an interval: a single question gives none."""
    return math.isfinite(interval.low) and math.isfinite(interval.high)


def beside(interval: Interval, reference: float) -> str:
    """Where an interval lies beside a number: "above", "below", or "" where it cannot be told.

    >>> half = Interval(value=0.6, low=0.55, high=0.65)
    >>> beside(half, 0.5), beside(half, 0.7), beside(half, 0.6)
    ('above', 'below', '')
    """
    if has_bounds(interval) and interval.low > reference:
        return "above"
    return "below" if has_bounds(interval) and interval.high < reference else ""


def apart(one: Interval, other: Interval) -> str:
    """Where one interval lies beside another: "above", "below", or "" where they overlap."""
    if not (has_bounds(one) and has_bounds(other)):
        return ""
    if one.low > other.high:
        return "above"
    return "below" if one.high < other.low else ""


def judged(texts: tuple[str, str, str], where: str, *intervals: Interval) -> str:
    """The words for "above", "below" or "not to be told", or that there is nothing to judge by.

    Args:
        texts: the three, in that order.
        where: from `beside` or `apart`.
        intervals: those that it was judged by.
    """
    if not all(map(has_bounds, intervals)):
        return "without an interval, which takes two questions, this cannot be judged"
    return texts[("above", "below", "").index(where)]


def _density(density: Written) -> Iterator[str]:
    one, five, twenty = (density.interval(f"top_{share}_mass") for share in (1, 5, 20))
    gini = density.interval("gini")
    if one and five and twenty and gini:
        yield (
            f"The 5\u2009% of tokens with the largest |THR| hold {percent(five)} of the summed "
            f"|THR|, the top 1\u2009% hold {percent(one)}, the top 20\u2009% hold "
            f"{percent(twenty)} (Gini coefficient {number(gini)}; equal shares would give 0)."
        )
    dominant = density.interval("dominant_share")
    if dominant:
        yield f"{percent(dominant)} of the tokens are dominant (|THR| > τ){_nonpositive(density)}."
    yield from _sign(density)


def _nonpositive(density: Written) -> str:
    groups = density.count("num_groups_tau_nonpositive")
    without = density.interval("dominant_share", POSITIVE_TAU)
    if not groups:
        return ""
    text = f"; {counted(groups, 'group')} with τ ≤ 0 count every token as dominant"
    return text + (f", and without them it is {percent(without)}" if without else "")


def _sign(density: Written) -> Iterator[str]:
    name = "positive_share_of_dominant"
    split = POSITIVE_TAU if density.interval(name, POSITIVE_TAU) else "all"
    positive = density.interval(name, split)
    if not positive:
        return
    told = judged(
        (
            "more of them push towards exploitation than towards exploration",
            "more of them push towards exploration than towards exploitation",
            "this cannot be told from an even split between exploitation and exploration",
        ),
        beside(positive, 0.5),
        positive,
    )
    where = " in groups of positive τ" if split == POSITIVE_TAU else ""
    yield f"Of the dominant tokens{where}, {percent(positive)} have a positive THR: {told}."


def _overlap(overlap: Written) -> Iterator[str]:
    split = str(overlap.facts.get("drawn_split", "all"))
    mean, chance = (overlap.interval(name, split) for name in ("mean_overlap", "mean_chance"))
    if not (mean and chance):
        return
    told = judged(
        ("more than chance", "less than chance", "this cannot be told from chance"),
        apart(mean, chance),
        mean,
        chance,
    )
    yield (
        f"On average {percent(mean)} of a completion's dominant tokens are also among its tokens "
        f"of highest entropy, where as many tokens drawn at random give {percent(chance)}: {told}."
    )


def _retention(retention: Written) -> Iterator[str]:
    low, middle, high = (
        retention.interval(f"retained_{name}") for name in ("q10", "median", "q90")
    )
    if low and middle and high:
        yield (
            f"Between questions the share of tokens retained by the threshold varies: its median "
            f"is {percent(middle)}, and a tenth of the questions each lie below "
            f"{percent(low)} and above {percent(high)}."
        )


def _pass_at_k(passk: Written) -> Iterator[str]:
    ks = [k for k in passk.facts.get("ks", []) if passk.interval(f"pass_at_{k}")]
    if not ks:
        return
    first, last = (passk.interval(f"pass_at_{k}") for k in (ks[0], ks[-1]))
    never = passk.interval("never_solved")
    if not (first and last):
        return
    text = f"Pass@{ks[0]} is {percent(first)}"
    if len(ks) > 1:
        text += f", and Pass@{ks[-1]} is {percent(last)}"
        if not apart(first, last):
            text += ": the intervals overlap"
    yield text + (f"; {percent(never)} of the groups hold no correct completion." if never else ".")


def _reflection(reflection: Written) -> Iterator[str]:
    name = "reflection_ratio"
    every, right, wrong = (reflection.interval(name, s) for s in ("all", "correct", "incorrect"))
    if not every:
        return
    text = f"{percent(every, digits=2)} of the generated tokens are reflection words"
    if right and wrong:
        told = judged(
            (
                "more in correct ones",
                "fewer in correct ones",
                "the two cannot be told apart",
            ),
            apart(right, wrong),
            right,
            wrong,
        )
        text += (
            f"; {percent(right, digits=2)} in correct and {percent(wrong, digits=2)} in incorrect "
            f"completions: {told}"
        )
    yield f"{text}."


def _curves(curves: Written) -> Iterator[str]:
    for run in dict.fromkeys(row["split"] for row in curves.summary):
        first, last = (
            curves.interval(f"reward_generated_{name}", run) for name in ("first", "last")
        )
        if first and last:
            yield (
                f"In training {run} the mean reward of all completions generated went from "
                f"{number(first)} in the first step to {number(last)} in the last."
            )


_SENTENCES: Mapping[str, Sentences] = {
    "density": _density,
    "overlap": _overlap,
    "retention": _retention,
    "passk": _pass_at_k,
    "reflection": _reflection,
    "curves": _curves,
}
"""In the order in which they are told."""
