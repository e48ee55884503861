"""The findings of a run in plain sentences, each with its numbers and what its interval allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from thr_probe.analysis.result import counted
from thr_probe.core.stats import Interval
from thr_probe.report.wording import apart, beside, judged, number, percent
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
    is_warning: bool = False
    """Whether it says that the data are not sound."""


Sentences = Callable[[Written], Iterator[str]]


def findings(analyses: Mapping[str, Written]) -> list[Finding]:
    """What the analyses of a run show; an analysis without data says nothing.

    Args:
        analyses: by name.
    """
    return [
        Finding(analysis=name, text=text, is_warning=told is _WARNINGS)
        for told in (_WARNINGS, _SENTENCES)
        for name, sentences in told.items()
        if name in analyses and not analyses[name].empty_reason
        for text in sentences(analyses[name])
    ]


def _density(density: Written) -> Iterator[str]:
    one, five, twenty = (density.interval(f"top_{share}_mass") for share in (1, 5, 20))
    gini = density.interval("gini")
    if one and five and twenty and gini:
        yield (
            f"The 5\u202f% of tokens with the largest |THR| hold {percent(five)} of the summed "
            f"|THR|, the top 1\u202f% hold {percent(one)}, the top 20\u202f% hold "
            f"{percent(twenty)} (Gini coefficient {number(gini)}; equal shares would give 0)."
        )
    dominant = density.interval("dominant_share")
    if dominant:
        yield (
            f"{percent(dominant)} of the tokens are dominant (|THR|\u00a0>\u00a0τ)"
            f"{_nonpositive(density)}."
        )
    yield from _sign(density)


def _nonpositive(density: Written) -> str:
    groups = density.count("num_groups_tau_nonpositive")
    without = density.interval("dominant_share", POSITIVE_TAU)
    if not groups:
        return ""
    text = f"; {counted(groups, 'group')} with τ\u00a0≤\u00a00 count every token as dominant"
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


def _balance(balance: Written) -> Iterator[str]:
    found = balance.interval("balance")
    if found:
        told = judged(
            (
                "exploitation outweighs exploration",
                "exploration outweighs exploitation",
                "neither can be told to outweigh the other",
            ),
            beside(found, 0.0),
            found,
        )
        yield f"The sum of THR over the sum of |THR| is {number(found)}: {told}."


def _entropy(entropy: Written) -> Iterator[str]:
    rank, partial = entropy.interval("spearman_entropy"), entropy.interval("partial_entropy")
    if not rank:
        return
    text = f"Within a completion |THR| and entropy have a rank correlation of {number(rank)}"
    if partial:
        told = judged(
            (
                "entropy goes with |THR| beyond them",
                "beyond them it goes against |THR|",
                "beyond them no relation can be told",
            ),
            beside(partial, 0.0),
            partial,
        )
        text += f"; given the token's probability and position it is {number(partial)}: {told}"
    yield f"{text}."


def _split(split: Written) -> Iterator[str]:
    cross, own = split.interval("cross_token_share"), split.interval("self_share")
    if cross and own:
        yield (
            f"Of the influence that makes up THR, {percent(cross)} is between different tokens and "
            f"{percent(own)} is of a token on itself."
        )


def _position(position: Written) -> Iterator[str]:
    first, last = (position.interval(f"magnitude_{end}_tenth") for end in ("first", "last"))
    if first and last:
        told = judged(
            ("larger early", "larger late", "the two cannot be told apart"),
            apart(first, last),
            first,
            last,
        )
        yield (
            f"The mean |THR| is {number(first)} in the first tenth of the completions and "
            f"{number(last)} in the last: {told}."
        )


def _advantage(advantage: Written) -> Iterator[str]:
    split = POSITIVE_TAU if advantage.interval("influence_captured", POSITIVE_TAU) else "all"
    captured = advantage.interval("influence_captured", split)
    where = " in groups of positive τ" if split == POSITIVE_TAU else ""
    if captured:
        yield (
            f"The dominant tokens{where} hold {percent(captured)} of the summed |advantage| × "
            "|THR|, the first-order influence of a step."
        )


def _retention(retention: Written) -> Iterator[str]:
    low, middle, high = (
        retention.interval(f"retained_{name}") for name in ("q10", "median", "q90")
    )
    if low and middle and high:
        yield (
            "Over the questions, the share of tokens retained by the threshold has the median "
            f"{percent(middle)}; for a tenth of them it is {percent(low)} or less, for a tenth "
            f"{percent(high)} or more."
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
    of_words = reflection.count("num_text_words") > 0  # a run without token ids

    def share(interval: Interval) -> str:
        return number(interval) if of_words else percent(interval, digits=2)

    text = f"{share(every)} of the generated tokens are reflection words"
    if of_words:
        text = f"Completions hold {share(every)} reflection words per 1,000 words of text"
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
        text += f"; {share(right)} in correct and {share(wrong)} in incorrect completions: {told}"
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


def _compare(compare: Written) -> Iterator[str]:
    yield from compare.facts.get("gains", [])


def _compare_warnings(compare: Written) -> Iterator[str]:
    for text in compare.facts.get("warnings", []):
        yield f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _unhealthy(health: Written) -> Iterator[str]:
    for row in health.rows("checks"):
        if row["verdict"] == "bad":
            value = float(row["value"])
            of = row["unit"].removeprefix("share ")
            shown = f"{value:.3g} nats" if of == "nats" else f"{100 * value:.1f}\u202f% {of}"
            yield f"Bad data: {row['check']}, {shown} ({row['rule']})."


_WARNINGS: Mapping[str, Sentences] = {"health": _unhealthy, "compare": _compare_warnings}
"""What to know before anything else is read."""

_SENTENCES: Mapping[str, Sentences] = {
    "density": _density,
    "balance": _balance,
    "overlap": _overlap,
    "entropy": _entropy,
    "split": _split,
    "position": _position,
    "advantage": _advantage,
    "retention": _retention,
    "passk": _pass_at_k,
    "reflection": _reflection,
    "curves": _curves,
    "compare": _compare,
}
"""In the order in which they are told."""
