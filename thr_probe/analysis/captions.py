"""LaTeX captions: what is shown, the numbers behind it, what was left out, which intervals."""

from __future__ import annotations

import math

from thr_probe.analysis.intervals import interval_sentence
from thr_probe.analysis.result import Analysis, counted, latex_escape, latex_percent

_THR = r"$|\mathrm{THR}|$"


def density_caption(analysis: Analysis, style: str) -> str:
    """The caption of the density figure in one of its styles.

    Args:
        analysis: of `thr_density`, with something to draw.
        style: `paper` or `diagnostic`.
    """
    facts = analysis.facts
    unit = r"THR$/\tau$" if facts["normalize"] == "tau" else "THR"
    scale = f"{facts['asinh_scale']:.3g}"
    axis = {
        "paper": "the linear axis ends at the 0.5 and 99.5\\,\\% quantiles "
        "(or at $1.5$ times the median $\\tau$ where that is wider)",
        "diagnostic": rf"bins are uniform in $\mathrm{{asinh}}(\mathrm{{THR}}/{scale})$, "
        "and the vertical axis is logarithmic",
    }[style]
    lines = (
        r"dotted lines at $\pm 1$"
        if facts["normalize"] == "tau"
        else r"dotted lines at plus and minus the median $\tau$"
    )
    if not math.isfinite(analysis.value("median_tau").value):
        lines = "no group has a positive threshold to be marked"
    tops = [latex_percent(analysis.value(f"top_{share}_mass")) for share in (1, 5, 20)]
    return caption_of(
        analysis,
        "Brackets and bands",
        f"Distribution of token-level {unit} in correct (a) and incorrect (b) completions: "
        f"{counts_phrase(analysis)}",
        f"Blue is {unit} above 0 (exploitation), hatched vermilion below 0 (exploration); {axis}; "
        f"{lines}",
        f"Dominant ({_THR} above the threshold of the group) are "
        f"{latex_percent(analysis.value('dominant_share'))} of the tokens; "
        f"{latex_percent(analysis.value('positive_share'))} have a positive THR"
        + _zero_clause(analysis, style)
        + _nonpositive_clause(analysis),
        f"(c) Share of the summed {_THR} that the tokens of largest {_THR} hold: the top 1, 5 and "
        f"20\\,\\% hold {tops[0]}, {tops[1]} and {tops[2]} (Gini coefficient "
        f"{_gini(analysis)}); the dotted line would be equal shares",
        *left_out_sentences(analysis),
    )


def _zero_clause(analysis: Analysis, style: str) -> str:
    zero = analysis.value("zero_share")
    if style == "paper" or zero.value == 0:
        return ""
    return f", and {latex_percent(zero)} one of exactly 0, which no bin shows"


def _gini(analysis: Analysis) -> str:
    gini = analysis.value("gini")
    bounds = f" [{gini.low:.3f}, {gini.high:.3f}]" if math.isfinite(gini.low) else ""
    return f"{gini.value:.3f}{bounds}"


def _nonpositive_clause(analysis: Analysis) -> str:
    """What groups whose threshold is not positive, and keeps every token, add to the dominant."""
    number = analysis.count("num_groups_tau_nonpositive")
    if number == 0:
        return ""
    splits = set(analysis.summary["split"])
    kept = "none is left"
    if "all, tau > 0" in splits:
        kept = f"{latex_percent(analysis.value('dominant_share', 'all, tau > 0'))} are dominant"
    return (
        f". In {counted(number, 'group')} $\\tau \\le 0$ makes every token dominant and is left "
        f"out of the median $\\tau$; without them {kept}"
    )


def overlap_caption(analysis: Analysis) -> str:
    """The caption of the overlap figure.

    Args:
        analysis: of `thr_entropy_overlap`, with something to draw.
    """
    facts = analysis.facts
    split = str(facts["drawn_split"])
    value = {
        name: latex_percent(analysis.value(name, split))
        for name in ("median_overlap", "peak_overlap", "mean_overlap", "mean_chance")
    }
    drawn = counted(analysis.count("num_completions_drawn"), "completion")
    return caption_of(
        analysis,
        "Brackets and bands",
        f"Overlap between dominant tokens ({_THR} above the threshold $\\tau$) and as many tokens "
        f"of highest entropy of the same completion: {counts_phrase(analysis)}",
        f"Histogram and kernel density estimate (Scott's bandwidth {facts['bandwidth']:.3f}, "
        f"reflected at 0 and 1) over the {drawn} with at least one dominant token in groups of "
        "positive $\\tau$; (b) separates them by correctness",
        f"Median {value['median_overlap']}, peak {value['peak_overlap']}, mean "
        f"{value['mean_overlap']}; the same number of tokens drawn at random would overlap by "
        f"{value['mean_chance']}",
        *_outside_the_curve(analysis),
        *left_out_sentences(analysis),
    )


def _outside_the_curve(analysis: Analysis) -> list[str]:
    none = analysis.count("num_completions_none_dominant")
    apart = analysis.count("num_completions_apart")
    if none + apart == 0:
        return []
    return [
        "The strip shows the completions outside the curve: "
        f"{none:,} without a dominant token, and {apart:,} of groups with $\\tau \\le 0$, where "
        "(nearly) every token is dominant and the overlap is 1 by definition"
    ]


def retention_caption(analysis: Analysis) -> str:
    """The caption of the retention figure.

    Args:
        analysis: of `tokens_retained`, with something to draw.
    """
    nonpositive = analysis.count("num_groups_tau_nonpositive")
    without = ""
    if nonpositive:
        kept = analysis.summary[
            (analysis.summary["quantity"] == "retained_share")
            & (analysis.summary["split"] == "all, tau > 0")
        ]
        share = (
            latex_percent(analysis.value("retained_share", "all, tau > 0")) if len(kept) else "--"
        )
        without = (
            f"In {counted(nonpositive, 'group')} $\\tau \\le 0$ retains every token; without "
            f"{'it' if nonpositive == 1 else 'them'} the share of all tokens is {share}"
        )
    return caption_of(
        analysis,
        "Brackets and bars",
        f"Share of tokens that the adaptive threshold retains, {_THR} $> \\tau$: "
        f"{counts_phrase(analysis)}",
        "(a) Distribution over questions of the share of each question's tokens; lines mark the "
        f"share of all tokens, {latex_percent(analysis.value('retained_share'))}, and the mean of "
        f"the completions' shares, {latex_percent(analysis.value('retained_mean'))}",
        "(b) Both by correctness of the completion",
        *([without] if without else []),
        *left_out_sentences(analysis),
    )


def counts_phrase(analysis: Analysis) -> str:
    """How many tokens, completions and questions the numbers are of."""
    tokens, completions, questions = (
        counted(analysis.count(f"num_{noun}s"), noun)
        for noun in ("token", "completion", "question")
    )
    return f"{tokens} of {completions} to {questions}"


def left_out_sentences(analysis: Analysis) -> list[str]:
    """What was left out, as a list of no sentence or one."""
    sentence = str(analysis.facts["exclusions"])
    return [latex_escape(sentence.rstrip("."))] if sentence else []


def caption_of(analysis: Analysis, where: str, *sentences: str) -> str:
    """Sentences without their full stops, and how the intervals shown there were made."""
    sizes = analysis.count("num_resamples"), analysis.count("num_questions")
    stopped = [f"{sentence}." for sentence in sentences]
    return " ".join([*stopped, interval_sentence(where, *sizes)])
