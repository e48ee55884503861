"""One correct and one incorrect completion with the weights of their dominant tokens (Figure 1)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from thr_probe.analysis.result import Analysis, counted, empty_analysis, latex_escape, summary_table
from thr_probe.errors import UsageError
from thr_probe.report.tokens.pieces import visible
from thr_probe.report.tokens.show import strongest
from thr_probe.report.tokens.show_data import ShownCompletion, ShownQuestion

NAME = "completions"
EXCERPT = 360
"""Characters of a completion that the figure shows at most; room for a label counts too."""
_LEAST_CELL = 3  # characters that the weights above and below a token take


def pair_of(question: ShownQuestion, rollout: int | None = None) -> ShownQuestion:
    """The question with two completions only: a correct one and an incorrect one.

    Of each kind the one whose dominant tokens have the largest mean |THR|, the earlier where equal;
    a rollout that is named stands for its kind.

    Raises:
        UsageError: all completions are correct, or none is, which leaves THR(p) nothing to weigh.
    """
    named = [each for each in question.completions if each.rollout_id == rollout]
    if rollout is not None and not named:
        raise UsageError(
            f"the question has no rollout {rollout}", "leave it out to have two chosen"
        )
    pair = []
    for correct in (True, False):
        kind = [each for each in question.completions if each.correct is correct]
        if not kind:
            word = "correct" if correct else "incorrect"
            raise UsageError(
                f"question {question.prompt_id} has no {word} completion, and Figure 1 shows one "
                "of each kind",
                "choose another question",
            )
        own = [each for each in named if each.correct is correct]
        pair.append(own[0] if own else max(kind, key=_influence))
    return replace(question, completions=tuple(pair))


def _influence(completion: ShownCompletion) -> float:
    kept = completion.dominant
    return float(np.abs(completion.thr_N[kept]).mean()) if kept.any() else 0.0


def completions_analysis(pair: ShownQuestion, p: float) -> Analysis:
    """The pieces that are drawn, with their weights at p and -p.

    Args:
        pair: of `pair_of`.
        p: above 0; weights are 1 + sign(THR) p at the dominant tokens and 0 elsewhere (Eq. 5).

    Returns:
        curves: `pieces`, a row per piece of both completions: `panel`, `rollout_id`, `piece`,
        `text`, `thr` (of the token of largest |THR|), `dominant`, `weight_plus`, `weight_minus`,
        `drawn` (whether it lies in the excerpt).

    Raises:
        UsageError: p outside (0, 1).
    """
    if not 0 < p < 1:
        raise UsageError(f"p of Figure 1 must lie strictly between 0 and 1, got {p}")
    tables = [_table(each, p) for each in pair.completions]
    facts: dict[str, object] = {
        "prompt_id": pair.prompt_id,
        "score_id": pair.score_id,
        "p": p,
        "num_questions": 1,
        "num_completions": 2,
    }
    for name, completion, table in zip(
        ("correct", "incorrect"), pair.completions, tables, strict=True
    ):
        drawn = table["drawn"].to_numpy()
        facts |= {
            f"{name}_rollout": completion.rollout_id,
            f"{name}_tau": float(completion.tau),
            f"{name}_tokens": len(completion.token_ids),
            f"{name}_dominant": int(completion.dominant.sum()),
            f"{name}_before": int(table["num_tokens"][: int(drawn.argmax())].sum()),
            f"{name}_after": int(table["num_tokens"][int(drawn.nonzero()[0][-1]) + 1 :].sum()),
        }
    if not any(each.dominant.any() for each in pair.completions):
        reason = f"Neither completion of question {pair.prompt_id} has a dominant token."
        return empty_analysis(NAME, reason, facts)
    analysis = Analysis(
        name=NAME,
        summary=summary_table([]),
        curves={"pieces": pd.concat(tables, ignore_index=True)},
        facts=facts,
        caption="",
    )
    return replace(analysis, caption=_caption(analysis, pair))


def _table(completion: ShownCompletion, p: float) -> pd.DataFrame:
    rows = []
    for number, piece in enumerate(completion.pieces):
        inside = slice(piece.first, piece.first + piece.num_tokens)
        dominant = bool(completion.dominant[inside].any())
        thr = strongest(completion.thr_N[inside])
        sign = float(np.sign(thr))
        rows.append(
            {
                "panel": "correct" if completion.correct else "incorrect",
                "rollout_id": completion.rollout_id,
                "piece": number,
                "num_tokens": piece.num_tokens,
                "text": visible(piece.text),
                "thr": thr,
                "dominant": dominant,
                "weight_plus": round(1 + sign * p, 9) if dominant else 0.0,
                "weight_minus": round(1 - sign * p, 9) if dominant else 0.0,
            }
        )
    table = pd.DataFrame(rows)
    start, stop = _window(table)
    return table.assign(drawn=(table.index >= start) & (table.index < stop))


def _window(table: pd.DataFrame) -> tuple[int, int]:
    """The excerpt that holds the most |THR| of dominant tokens: first piece, one past the last."""
    width = np.maximum(
        table["text"].str.len().to_numpy(), _LEAST_CELL * table["dominant"].to_numpy()
    )
    mass = np.nan_to_num(table["thr"].abs().to_numpy() * table["dominant"].to_numpy())
    ends, masses = np.append(0, np.cumsum(width)), np.append(0, np.cumsum(mass))
    # of every start the last end within the room; a piece that is longer than all stands alone
    stop = np.searchsorted(ends, ends[:-1] + EXCERPT, side="right") - 1
    stop = np.maximum(stop, np.arange(1, len(table) + 1))
    start = int(np.argmax(masses[stop] - masses[:-1]))
    return start, int(stop[start])


def _caption(analysis: Analysis, pair: ShownQuestion) -> str:
    facts = analysis.facts
    p = f"{float(str(facts['p'])):g}"
    left_out = []
    for name in ("correct", "incorrect"):
        before, after = analysis.count(f"{name}_before"), analysis.count(f"{name}_after")
        if before + after:
            left_out.append(
                f"of the {name} one {counted(before, 'token')} before and {after:,} behind"
            )
    sentences = [
        "A correct (a) and an incorrect (b) completion of one question "
        f"(\\texttt{{{latex_escape(pair.prompt_id)}}}, rollouts {facts['correct_rollout']} and "
        f"{facts['incorrect_rollout']})",
        "Tokens with a background are dominant, $|\\mathrm{THR}| > \\tau$: blue above 0 "
        "(exploitation), vermilion with a dashed underline below 0 (exploration); all others have "
        "weight 0",
        f"Above them the factor of their advantage at $p = {p}$, below them at $p = -{p}$, "
        r"$1 + \mathrm{sign}(\mathrm{THR})\,p$",
        f"Dominant are {facts['correct_dominant']} of {facts['correct_tokens']} and "
        f"{facts['incorrect_dominant']} of {facts['incorrect_tokens']} tokens",
    ]
    if left_out:
        sentences.append(
            "Shown is the stretch with the largest sum of dominant "
            "$|\\mathrm{THR}|$; left out are " + ", and ".join(left_out)
        )
    return " ".join(f"{sentence}." for sentence in sentences)
