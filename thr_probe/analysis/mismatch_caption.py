"""The LaTeX caption of the comparison of sampler and policy."""

from __future__ import annotations

import math

from thr_probe.analysis.binned import latex_significant
from thr_probe.analysis.captions import caption_of, counts_phrase, left_out_sentences
from thr_probe.analysis.result import Analysis, latex_escape, latex_percent
from thr_probe.core.mismatch import LARGEST_LOG_RATIO


def mismatch_caption(analysis: Analysis) -> str:
    """The caption of the figure.

    Args:
        analysis: of `sampler_mismatch`, with something to draw.
    """
    facts = analysis.facts
    bound, cap = f"{facts['bound']:g}", f"{facts['cap']:g}"
    k1, k3, gap = (
        latex_significant(analysis.value(name)) for name in ("kl_k1", "kl_k3", "mean_gap")
    )
    truncated, size = (
        latex_percent(analysis.value(name)) for name in ("truncated_share", "ess_share")
    )
    largest = _largest(analysis.value("largest_ratio").value)
    caution = str(facts["caution"])
    return caption_of(
        analysis,
        "Brackets and bands",
        r"Log-probabilities under the sampler ($\mu$) against the policy's own ($\pi$): "
        f"{counts_phrase(analysis)}",
        *([latex_escape(caution.rstrip("."))] if caution else []),
        r"(a) Share of tokens whose $|\log\pi - \log\mu|$ exceeds each size, by kind of token; "
        rf"{latex_percent(analysis.value('beyond_share'))} differ by more than {bound} nats "
        rf"(dotted), in the mean by {gap} nats",
        r"(b) The mean difference and the estimate $k_3$ of $\mathrm{KL}(\mu \,\|\, \pi)$ per "
        rf"token by position in the completion; over all tokens $k_3$ is {k3} nats, and $k_1$, "
        rf"which may be negative, {k1}",
        _third_panel(analysis),
        rf"The largest ratio $\pi/\mu$ is {largest}; truncated importance sampling with "
        rf"$C = {cap}$ would cut {truncated} of the ratios, whose effective sample size is {size} "
        "of their number",
        *left_out_sentences(analysis),
    )


def _largest(ratio: float) -> str:
    if ratio < math.exp(LARGEST_LOG_RATIO) * (1 - 1e-9):
        return f"${ratio:.6g}$"
    return rf"$e^{{{LARGEST_LOG_RATIO:g}}}$ or more (ratios are capped there)"


def _third_panel(analysis: Analysis) -> str:
    low, middle, high = (
        latex_significant(analysis.value(f"sequence_log_ratio_{name}"))
        for name in ("q05", "median", "q95")
    )
    told = (
        rf"of whole completions $\log(\pi/\mu)$ has the 5\,\%, 50\,\% and 95\,\% quantiles {low}, "
        f"{middle} and {high} nats"
    )
    if "steps" in analysis.curves:
        return f"(c) Both by step of training; {told}"
    return f"(c) Distribution over completions, the end bins with what lies beyond: {told}"
