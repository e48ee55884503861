"""The whole way on the lab: problems, completions, THR, figures, report; no GPU, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from thr_probe.analysis.result import Analysis
from thr_probe.collect import collect
from thr_probe.config import CollectConfig, DemoConfig
from thr_probe.gallery import Outcome
from thr_probe.progress import SILENT, Monitor
from thr_probe.report.build import ReportOptions, write_report


def demo(
    out: Path,
    config: DemoConfig,
    *,
    overwrite: bool = False,
    monitor: Monitor = SILENT,
) -> str | None:
    """Collect lab rollouts into `out/run`, analyze them into `out/figures`, bind `out/report.html`.

    Args:
        out: the folder to make.
        config: how many problems and completions.
        overwrite: replace an earlier demo.
        monitor: told of the progress.

    Returns:
        Where everything is and what it shows; None when stopped early.

    Raises:
        UsageError: a demo that stands there already.
    """
    collecting = CollectConfig(
        max_prompts=config.max_prompts,
        group_size=config.group_size,
        seed=config.seed,
        split=True,  # with both, every analysis applies
        thr_error=True,
    )
    run_path, figures, report = out / "run", out / "figures", out / "report.html"
    argv = ("thr-probe", "demo")
    if not collect(collecting, run_path, overwrite=overwrite, argv=argv, monitor=monitor):
        return None
    options = ReportOptions(command="thr-probe demo")
    reported = write_report([run_path], report, options, keep=figures)
    return _story(run_path, figures, report, reported.outcomes[0])


def _story(run_path: Path, figures: Path, report: Path, outcomes: Sequence[Outcome]) -> str:
    lines = [f"run:     {run_path}", f"report:  {report}", f"figures: {figures}"]
    lines += [
        f"  {outcome.name:<11}{outcome.figure}" + (f"  ({outcome.note})" if outcome.note else "")
        for outcome in outcomes
    ]
    analyses = {outcome.name: outcome.analysis for outcome in outcomes if outcome.analysis}
    return "\n".join([*lines, "", *shown(analyses)])


def shown(analyses: Mapping[str, Analysis]) -> list[str]:
    """What the demo shows, in two sentences with its own numbers and their intervals."""
    density, overlap, passk = (analyses[name] for name in ("density", "overlap", "passk"))
    if density.empty_reason or overlap.empty_reason:
        return [density.empty_reason or overlap.empty_reason or ""]
    largest = max(passk.curves["curve"]["k"])
    return [
        f"The 5 % of tokens with the largest |THR| hold {percent(density, 'top_5_mass')} of the "
        f"summed |THR|; {percent(density, 'dominant_share')} of the tokens are dominant "
        f"(|THR| > tau), of which {percent(density, 'positive_share_of_dominant')} push towards "
        "exploitation (THR > 0) and the others towards exploration.",
        f"On average {percent(overlap, 'mean_overlap')} of a completion's dominant tokens are also "
        f"its highest-entropy tokens (chance: {percent(overlap, 'mean_chance')}), and "
        f"Pass@{largest} of {percent(passk, f'pass_at_{largest}')} against Pass@1 of "
        f"{percent(passk, 'pass_at_1')} is the room there is to explore.",
    ]


def percent(analysis: Analysis, quantity: str) -> str:
    """A share with its interval, over groups of positive tau where there are others."""
    positive = "all, tau > 0"
    split = positive if positive in set(analysis.summary["split"]) else "all"
    interval = analysis.value(quantity, split)
    return f"{interval.value:.0%} [{interval.low:.0%}, {interval.high:.0%}]"
