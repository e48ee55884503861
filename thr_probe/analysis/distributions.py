"""Whether log-probabilities of sampler and policy are of one distribution, as far as recorded."""

from __future__ import annotations

from dataclasses import dataclass

from thr_probe.traces.reader import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Distributions:
    """What sets the sampler's distribution apart from the policy's, apart from the engine."""

    unknown: str | None = None
    """A temperature that is not recorded."""
    different: str | None = None
    """Temperatures that differ."""
    cut: str | None = None
    """Top-p or top-k: the sampler's log-probabilities are renormalised over what is kept."""
    is_greedy: bool = False
    """Nothing was drawn: the tokens are the likeliest ones, told with log-probabilities at 1."""

    @property
    def obstacle(self) -> str | None:
        """Why they cannot be expected to be equal; None where they can."""
        return self.unknown or self.different or self.cut


def distributions(run: Run, score_id: str) -> Distributions:
    """Compares how a run was sampled with how a score set was made.

    Args:
        run: the trace; its options tell temperature, top-p and top-k.
        score_id: the score set; its `score.json` tells the temperature of pi.
    """
    sampled = run.config.get("temperature")
    scored = run.score_info(score_id).get("temperature")
    if sampled is None or scored is None:
        return Distributions(
            unknown="the temperature of the sampler or of the scores is not recorded"
        )
    is_greedy = sampled == 0
    # a sampler tells the log-probabilities of greedy completions at temperature 1
    if scored != (1 if is_greedy else sampled):
        return Distributions(
            different=f"sampled at temperature {sampled}, scored at {scored}", is_greedy=is_greedy
        )
    top_p, top_k = run.config.get("top_p"), run.config.get("top_k")
    is_cut = top_p not in (None, 1, 1.0) or top_k not in (None, 0, -1)
    cut = "the sampler cut its distribution (top-p or top-k)" if is_cut and not is_greedy else None
    return Distributions(cut=cut, is_greedy=is_greedy)
