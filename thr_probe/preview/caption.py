"""The LaTeX caption of the preview."""

from __future__ import annotations

import math

from thr_probe.analysis.captions import caption_of, counts_phrase, left_out_sentences
from thr_probe.analysis.result import Analysis, counted, latex_escape, latex_percent
from thr_probe.core.stats import Interval


def preview_caption(analysis: Analysis) -> str:
    """What is shown, with the numbers.

    Args:
        analysis: of `preview`, with something to draw.
    """
    facts = analysis.facts
    return caption_of(
        analysis,
        "Bands and bars",
        f"What \\texttt{{{latex_escape(str(facts['method']))}}} would do to saved rollouts: "
        f"{counts_phrase(analysis)}",
        "(a) Predicted first-order change of the correct completions' likelihood under a step on "
        "each question by itself, in units of THR, mean over groups"
        + _steering_clause(analysis)
        + "; the dotted line is plain GRPO, "
        f"{_number(analysis.value('plain_drift'))}",
        "(b) Tokens that two methods single out: those that both do over those that either does "
        "(dots), and the share of the smaller set that is in the larger (squares; by chance: "
        f"crosses); the sets are {_masks(analysis)}",
        "The tokens that carry the signal hold "
        f"{latex_percent(analysis.value('influence_captured'))} of the summed "
        r"$|A|\,|\mathrm{THR}|$",
        *left_out_sentences(analysis),
    )


def _steering_clause(analysis: Analysis) -> str:
    if analysis.facts["method"] != "thr":
        return ", which this method does not steer by $p$"
    zero = analysis.value("p_zero")
    text = (
        rf", affine in $p$: net drift {_number(analysis.value('net_drift'))}, slope "
        f"{_number(analysis.value('steering_slope'))}"
    )
    return text + (f", 0 at $p = {_number(zero)[1:]}" if math.isfinite(zero.value) else "")


def _masks(analysis: Analysis) -> str:
    shares = {
        "THR": r"dominant by THR ($|\mathrm{THR}| > \tau$)",
        "entropy": f"the top {_percent(analysis.facts['entropy_share'])} by entropy of the step",
        "KL-Cov": f"the top {_percent(analysis.facts['cov_share'])} by covariance of the "
        "mini-batch (KL-Cov)",
        "NTHR": "those that NTHR damps",
    }
    present = analysis.summary.loc[analysis.summary["quantity"] == "mask_share", "split"]
    return "; ".join(
        f"{shares[name]}, {latex_percent(analysis.value('mask_share', name))} of the tokens"
        for name in present
    ) + _nonpositive_clause(analysis)


def _nonpositive_clause(analysis: Analysis) -> str:
    """Why so many tokens may be dominant: a threshold that is not positive keeps every one."""
    number = int(
        (analysis.curves["groups"].drop_duplicates(["step", "prompt_id"])["tau"] <= 0).sum()
    )
    if not number:
        return ""
    return f". In {counted(number, 'group')} $\\tau \\le 0$ makes every token dominant"


def _percent(share: object) -> str:
    return rf"{100 * float(str(share)):g}\,\%"


def _number(interval: Interval) -> str:
    text = f"${_digits(interval.value)}$"
    if math.isfinite(interval.low):
        text += f" [${_digits(interval.low)}$, ${_digits(interval.high)}$]"
    return text


def _digits(value: float) -> str:
    """Three significant digits; no exponent for numbers of a usual size."""
    if 1000 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if exponent else mantissa
