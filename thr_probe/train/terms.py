"""What the paper (or the cited work) calls each option of `train`, and the table of the docs."""

from __future__ import annotations

from dataclasses import fields

from thr_probe.config import flag_name
from thr_probe.train.config import TrainConfig

PAPER_TERMS: dict[str, str] = {
    "method": "THR (Eqs. 4, 5), GRPO, Pos Only, Neg Only (C.1), NTHR (Deng et al.), high-entropy "
    "tokens (80/20, Wang et al.)",
    "p": "p of THR(p), Eq. 5",
    "beta": "beta of tau (Deng et al., Eq. 8)",
    "tau": "tau, Eqs. 4 and 5",
    "reduce": "min over correct responses in tau",
    "self_influence": '"all" or "other" correct responses in tau (E.5, section 6)',
    "keep_entropy": "top 20 % entropy tokens kept beside the dominant ones (App. B)",
    "entropy_share": "rho of 80/20 (Wang et al. 2025)",
    "advantage": "Eq. 1; Dr. GRPO (Liu et al. 2025); PKPO (Walder and Karkhanis 2025)",
    "adv_std": "standard deviation in Eq. 1",
    "pass_at_k": "Pass@K training (Eq. 6), Pass@K-mixed, static chi (section 6.2)",
    "mix": "weights of Pass@K-mixed: as printed, or Eq. 18 of Chen et al. 2025",
    "chi": "chi (section 6.2)",
    "k": "K of Eq. 6",
    "renorm": "divisor of Eq. 2 under a token mask",
    "adaptive_p": "adaptive p (named as future work)",
    "objective": "GRPO (Eq. 2), GSPO-token (Eqs. 7, 8), GSPO",
    "clip_low": "epsilon of Eq. 2",
    "clip_high": "epsilon of Eq. 2; Clip-High (E.3) is 0.28",
    "dual_clip": "dual clip (Ye et al. 2020); not in the paper",
    "cov": "Cov-KL (E.3); Clip-Cov (Cui et al. 2025)",
    "cov_share": "k of Cov-KL, r of Clip-Cov",
    "cov_coef": "beta of Cov-KL",
    "cov_low": "omega_low of Clip-Cov",
    "cov_high": "omega_high of Clip-Cov",
    "importance_correction": "importance weights of tokens (Yao et al. 2025); not in the paper",
    "tis_cap": "C of tis",
    "kl_coef": "KL coefficient (App. B); k3",
    "entropy_coef": "entropy coefficient; the paper is silent",
    "aggregate": "1 / sum |y_i| of Eq. 2",
    "prompts": "batch size (App. B)",
    "group_size": "G",
    "temperature": "sampling temperature (App. B)",
    "max_new_tokens": "maximum response length (App. B)",
    "max_gen_batches": "dynamic sampling (Yu et al. 2025)",
    "mini_batch": "mini-batch size (App. B)",
    "mini_batch_unit": "whether the mini-batch counts prompts or responses (E.2)",
    "lr": "learning rate (App. B)",
    "steps": "steps (App. B)",
    "model": "policy pi_theta",
    "template": "prompt template (SimpleRL-Zoo)",
    "vocab": "vocabulary that alpha sums over (Def. 4.1)",
}


def options_table() -> str:
    """Paper term, flag, config key, default: one row per option, those with a term first."""
    rows = ["| paper | flag | config key | default |", "| --- | --- | --- | --- |"]
    listed = {item.name: item.default for item in fields(TrainConfig)}
    ordered = [*PAPER_TERMS, *(name for name in listed if name not in PAPER_TERMS)]
    for name in ordered:
        default = "unset" if listed[name] is None else f"`{listed[name]}`"
        rows.append(f"| {PAPER_TERMS.get(name, '')} | `{flag_name(name)}` | `{name}` | {default} |")
    return "\n".join(rows)
