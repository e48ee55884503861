"""The preview of a method as an analysis: weights, gradient shares, drift, overlap of masks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
from jaxtyping import Float

from thr_probe.analysis.resampling import Drawn, ResampledSums, Resampler
from thr_probe.analysis.result import (
    SUMMARY_COLUMNS,
    Analysis,
    counted,
    empty_analysis,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import Strata
from thr_probe.core.stats import Interval, quotient
from thr_probe.preview.caption import preview_caption
from thr_probe.preview.groups import SavedSteps
from thr_probe.preview.measures import MASKS, Measured, Setting, mask_pairs, measured
from thr_probe.preview.options import PreviewOptions
from thr_probe.traces import Run

NAME = "preview"
_GRID = np.linspace(-1, 1, 81)
_QUANTILES = {"weight_q10": 0.1, "weight_median": 0.5, "weight_q90": 0.9}
_DRIFT_UNIT = "THR, mean over groups of the sum over tokens"
_GRADIENT = "sum of |A| as the loss weighs tokens"
_SHARES = {"correct", "incorrect", "thr_positive", "thr_negative"}


def preview(run: Run, options: PreviewOptions) -> Analysis:
    """What a method would do to the rollouts of a run (METHOD 2.2, 4, 5.5).

    The tokens' advantages are the trainer's own (`train.scoring.set_token_advantages`), over steps
    of the stored size; groups without an advantage contribute nothing and are counted.

    Args:
        run: a run with scores.
        options: method, values of p, step.

    Returns:
        summary, per p (or for a method without p): `weight_mean`, `weight_q10`, `weight_median`,
        `weight_q90` (of |weight| relative to plain GRPO, over tokens), `weight_zero_share`,
        `gradient_kept` (sum |A| over that of plain GRPO, tokens weighed as the loss weighs them: in
        Equation 2 by one over the tokens of the group), `gradient_share_correct`, `_incorrect`,
        `_thr_positive`, `_thr_negative` (of the method's sum), `drift` (predicted first-order
        change of the correct completions' likelihood, per unit of step size, each group by
        itself). For all: `plain_drift` (of GRPO), `net_drift`, `steering_slope`, `p_zero`,
        `influence_captured`; by mask `mask_share`, by pair `jaccard` and
        `mask_share_in` (the share of one mask's tokens that are in the other).
        curves: `drift` (against p, with a band), `chosen`, `weights`, `overlap`, `groups`.

    Raises:
        DataError: columns that the run does not have; for NTHR another tokenizer than the run's.
        PrerequisiteError: NTHR's policy cannot be loaded.
    """
    steps = SavedSteps.of(run, options)
    found = measured(steps)
    facts = _facts(steps, found)
    reason = steps.stream.empty_reason()
    if reason is None and not found.groups:
        number = counted(steps.num_without_advantage, "mixed group")
        reason = f"All advantages of the {number} are 0 under this rule: nothing would be trained."
    if reason is not None:
        return empty_analysis(NAME, reason, facts)
    view = _View(steps, found)
    summary = summary_table([*view.setting_rows(), *view.shared_rows(), *view.mask_rows()])
    analysis = Analysis(
        name=NAME,
        summary=summary,
        curves=view.curves(summary),
        facts=facts | view.resampler.facts,
        caption="",
    )
    return replace(analysis, caption=preview_caption(analysis))


class _View:
    """The sums per group as numbers with intervals."""

    def __init__(self, steps: SavedSteps, found: Measured) -> None:
        self.steps, self.found, self.options = steps, found, steps.options
        stream = steps.stream
        question_G = stream.question_of_group[found.groups]
        self.questions, index_G = np.unique(question_G, return_inverse=True)
        every_G = np.ones(len(index_G), dtype=bool)
        strata = Strata(question_S=index_G, tau_positive_S=every_G, correct_S=every_G)
        self.every_G = every_G
        self.resampler = Resampler(strata, len(self.questions), seed=self.options.seed)
        self.masks = [name for name in MASKS if f"mask {name}" in found.shared[0]]
        self.shared = self.resampler.sums(
            {name: found.column(name) for name in found.shared[0] if name not in {"q", "tau"}}
        )

    def _row(self, quantity: str, split: str, unit: str, interval: Interval) -> dict[str, object]:
        return summary_row(quantity, split, unit, interval, num_questions=len(self.questions))

    def _shared_ratio(self, numerator: str, denominator: str) -> Interval:
        return self.shared.ratio(numerator, denominator, self.every_G)

    def setting_rows(self) -> Iterator[dict[str, object]]:
        """The rows of every p."""
        for name, setting in self.found.settings.items():
            yield from self._rows_of(name, setting)

    def _rows_of(self, name: str, setting: Setting) -> Iterator[dict[str, object]]:
        sums = self._sums(setting)

        def row(quantity: str, numerator: str, denominator: str, unit: str) -> dict[str, object]:
            ratio = sums.ratio(numerator, denominator, self.every_G)
            return self._row(quantity, name, unit, ratio)

        weight_unit = "|weight| relative to plain GRPO"
        yield row("weight_mean", "weight", "tokens", f"{weight_unit}, over tokens")
        for quantity, share in _QUANTILES.items():
            interval = self._weight_quantile(sums, setting, share)
            yield self._row(quantity, name, f"{weight_unit}, over tokens", interval)
        yield row("weight_zero_share", "unweighted", "tokens", "share of tokens")
        yield row("gradient_kept", "gradient", "plain_gradient", f"of plain GRPO's {_GRADIENT}")
        for part in sorted(_SHARES):
            yield row(f"gradient_share_{part}", part, "gradient", f"share of the {_GRADIENT}")
        yield row("drift", "drift", "groups", _DRIFT_UNIT)

    def _sums(self, setting: Setting) -> ResampledSums:
        columns = {name: setting.column(name) for name in setting.sums[0]}
        columns |= {
            name: self.found.column(name) for name in ("tokens", "groups", "plain_gradient")
        }
        values = _weight_values(setting)
        columns["weights"] = np.array(
            [[row.get(value, 0) for value in values] for row in setting.weights], dtype=np.float64
        )
        return self.resampler.sums(columns)

    def _weight_quantile(self, sums: ResampledSums, setting: Setting, share: float) -> Interval:
        """The smallest weight that at least the share of the tokens do not exceed."""
        values = np.array(_weight_values(setting))

        def statistic(drawn: Drawn) -> Float[np.ndarray, " C"]:
            upto_CK = np.cumsum(drawn["weights"], axis=1)
            enough_CK = upto_CK >= share * upto_CK[:, -1:] - 1e-9
            chosen_C: np.ndarray = values[np.argmax(enough_CK, axis=1)]
            return chosen_C

        return sums.interval(statistic, self.every_G, of="tokens")

    def shared_rows(self) -> Iterator[dict[str, object]]:
        """What holds for every p."""
        yield self._row(
            "plain_drift", "all", _DRIFT_UNIT, self._shared_ratio("plain_drift", "groups")
        )
        yield self._row("net_drift", "all", _DRIFT_UNIT, self._shared_ratio("net", "groups"))
        if self.options.config.method == "thr":
            slope = self._shared_ratio("slope", "groups")
            yield self._row("steering_slope", "all", f"{_DRIFT_UNIT}, per unit of p", slope)
            zero = self.shared.interval(
                lambda drawn: -quotient(drawn["net"], drawn["slope"]), self.every_G, of="slope"
            )
            yield self._row("p_zero", "all", "p at which the drift is 0", zero)
        captured = self._shared_ratio("captured", "total")
        yield self._row("influence_captured", "all", "share of the sum of |A| |THR|", captured)

    def mask_rows(self) -> Iterator[dict[str, object]]:
        """Sizes of the masks and the Jaccard index of every two."""
        for name in self.masks:
            size = self._shared_ratio(f"mask {name}", "tokens")
            yield self._row("mask_share", name, "share of tokens", size)
        for one, other in mask_pairs(self.masks):
            jaccard = self._shared_ratio(f"both {one} {other}", f"either {one} {other}")
            unit = "tokens in both over tokens in either"
            yield self._row("jaccard", f"{one} and {other}", unit, jaccard)
        for one, other in permutations(self.masks, 2):
            pair = " ".join(sorted((one, other), key=MASKS.index))
            share = self._shared_ratio(f"both {pair}", f"mask {one}")
            yield self._row("mask_share_in", f"{one} in {other}", f"share of {one}", share)

    def curves(self, summary: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """What is drawn, and the groups one by one."""
        value, low, high = self.shared.band(
            lambda drawn: quotient(
                drawn["net"][:, None] + drawn["slope"][:, None] * _GRID, drawn["groups"][:, None]
            ),
            self.every_G,
            of="groups",
        )
        chosen = summary.loc[summary["quantity"] == "drift", list(SUMMARY_COLUMNS)]
        ps = list(self.options.settings.values())
        if self.options.config.method != "thr":
            ps = [math.nan] * len(ps)
        return {
            "drift": pd.DataFrame({"p": _GRID, "drift": value, "low": low, "high": high}),
            "chosen": chosen.reset_index(drop=True).assign(p=ps),
            "weights": self._weights(),
            "overlap": self._overlap(),
            "groups": self._groups(),
        }

    def _weights(self) -> pd.DataFrame:
        """How many tokens have which |weight|."""
        rows = []
        for name, setting in self.found.settings.items():
            total = sum(sum(row.values()) for row in setting.weights)
            for value in _weight_values(setting):
                number = sum(row.get(value, 0) for row in setting.weights)
                row = {"setting": name, "weight": value, "tokens": number, "share": number / total}
                rows.append(row)
        return pd.DataFrame(rows)

    def _overlap(self) -> pd.DataFrame:
        """Every two masks: Jaccard index, and the share of the smaller in the larger."""
        rows = []
        tokens = self.found.column("tokens").sum()
        for one, other in mask_pairs(self.masks):
            jaccard = self._shared_ratio(f"both {one} {other}", f"either {one} {other}")
            sizes = {name: self.found.column(f"mask {name}").sum() for name in (one, other)}
            small, large = sorted(sizes, key=lambda name: sizes[name])
            share = self._shared_ratio(f"both {one} {other}", f"mask {small}")
            rows.append(
                {
                    "smaller": small,
                    "larger": large,
                    "jaccard": jaccard.value,
                    "jaccard_low": jaccard.low,
                    "jaccard_high": jaccard.high,
                    "share": share.value,
                    "share_low": share.low,
                    "share_high": share.high,
                    "share_by_chance": sizes[large] / tokens,
                    "tokens_smaller": int(sizes[small]),
                    "tokens_larger": int(sizes[large]),
                    "tokens_both": int(self.found.column(f"both {one} {other}").sum()),
                }
            )
        return pd.DataFrame(rows)

    def _groups(self) -> pd.DataFrame:
        """A row per group and p."""
        stream = self.steps.stream
        names, steps = stream.questions, stream.step_of_group
        prompt_ids = [names[index] for index in stream.question_of_group[self.found.groups]]
        shared = pd.DataFrame(self.found.shared)
        frame = pd.DataFrame(
            {
                "step": pd.array([steps[index] for index in self.found.groups], dtype="Int64"),
                "prompt_id": prompt_ids,
                **{name: shared[name] for name in ("q", "tau", "tokens", "net", "slope")},
                "p_zero": -quotient(shared["net"].to_numpy(), shared["slope"].to_numpy()),
                "influence_captured": quotient(
                    shared["captured"].to_numpy(), shared["total"].to_numpy()
                ),
            }
        )
        parts = []
        for name, setting in self.found.settings.items():
            own = {
                "setting": name,
                "weight_mean": setting.column("weight") / shared["tokens"],
                "weight_zero_share": setting.column("unweighted") / shared["tokens"],
                "drift": setting.column("drift"),
            }
            parts.append(frame.assign(**own))
        return pd.concat(parts, ignore_index=True)


def _weight_values(setting: Setting) -> list[float]:
    """The different weights, ascending."""
    return sorted({value for row in setting.weights for value in row})


def _facts(steps: SavedSteps, found: Measured) -> dict[str, object]:
    config, stream = steps.options.config, steps.stream
    facts = stream.facts() | {
        "num_questions": len({int(stream.question_of_group[index]) for index in found.groups}),
        "num_groups": len(found.groups),
        "num_tokens": int(sum(row["tokens"] for row in found.shared)),
        "method": config.method,
        "settings": list(steps.options.settings),
        "advantage": config.advantage,
        "adv_std": config.adv_std,
        "pass_at_k": config.pass_at_k,
        "mix": config.mix,
        "k": config.k,
        "keep_entropy": config.keep_entropy,
        "aggregate": config.aggregate,
        "tau": config.tau,
        "entropy_share": config.entropy_share,
        "cov_share": steps.options.cov_share,
        "groups_per_step": config.prompts,
        "groups_per_mini_batch": config.mini_batch_prompts,
        "excluded_groups_zero_advantage": steps.num_without_advantage,
        "exclusions": _exclusions(steps),
        "nthr_policy": config.model if steps.options.needs_nthr else None,
    }
    if steps.logprob_gaps:
        facts["replayed_logprob_gap"] = float(np.mean(steps.logprob_gaps))
    return facts


def _exclusions(steps: SavedSteps) -> str:
    sentence = steps.stream.exclusion_sentence()
    if not steps.num_without_advantage:
        return sentence
    own = f"{counted(steps.num_without_advantage, 'group')} with advantages of 0 under the rule"
    return f"{sentence[:-1]}, {own}." if sentence else f"Left out: {own}."
