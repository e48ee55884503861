"""Options of `thr-probe train`, and the combinations that are refused.

Nothing here loads torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from thr_probe.config import (
    METHOD,
    OBJECTIVE,
    OPTIMISER,
    OUTPUT,
    POLICY,
    PROBLEMS,
    SAMPLING,
    THR,
    RolloutConfig,
    flag_name,
    option,
)
from thr_probe.errors import UsageError

CHOICES: dict[str, tuple[str, ...]] = {
    "method": ("thr", "grpo", "pos-only", "neg-only", "nthr", "entropy-top", "random"),
    "advantage": ("grpo", "dr-grpo", "pkpo"),
    "adv_std": ("population", "sample"),
    "pass_at_k": ("none", "pure", "mixed", "static"),
    "mix": ("paper", "chen"),
    "renorm": ("none", "selected"),
    "objective": ("grpo", "gspo-token", "gspo"),
    "cov": ("none", "kl-cov", "clip-cov"),
    "cov_scope": ("mini-batch", "micro-batch"),
    "importance_correction": ("none", "tis"),
    "aggregate": ("group-token-mean", "token-mean", "sequence-mean", "dr-grpo"),
    "mini_batch_unit": ("prompts", "rollouts"),
    "adaptive_p": ("none", "schedule", "entropy"),
    "lr_decay": ("none", "linear"),
    "dtype": ("auto", "float32", "bfloat16"),
}
"""Options that take one of several words."""

TOKEN_METHODS = ("thr", "nthr", "entropy-top", "random")
"""Methods whose advantages differ between the tokens of a completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(RolloutConfig):
    """Options of `thr-probe train`; the defaults are the paper's where it states them."""

    preset: str = option(
        "auto",
        "lab, qwen-math-1.5b, qwen-math-7b, qwen2.5-0.5b-instruct, llama3.2-3b-instruct, none; "
        "auto: lab for the lab's policy, else none.",
    )

    dtype: str = option(
        "auto",
        "Of the forward and backward passes: float32, bfloat16, or auto (bfloat16 on CUDA); the "
        "trained weights are float32 always.",
        panel=POLICY,
    )
    micro_batch_tokens: int = option(
        16384, "Tokens per micro-batch of an update, padding included.", panel=POLICY
    )
    recompute: bool = option(
        default=False,
        meaning="Form activations again in the backward pass: less memory, a third more time.",
        panel=POLICY,
    )

    dataset: str = option(
        "lab:train",
        "Problems: lab:train, a .parquet, .jsonl or .csv file, or a hub id.",
        panel=PROBLEMS,
    )
    validation: str | None = option(
        None, "Problems that the policy is evaluated on, as --dataset; or none.", panel=PROBLEMS
    )
    validation_prompts: int | None = option(None, "Only the first so many of them.", panel=PROBLEMS)
    eval_every: int = option(
        10, "Steps between evaluations; 0: at the start and the end.", panel=PROBLEMS, least=0
    )

    steps: int = option(40, "Steps: rollout batches.", panel=SAMPLING)
    prompts: int = option(256, "Questions per step whose groups have an advantage.", panel=SAMPLING)
    gen_prompts: int | None = option(
        None, "Questions of the first round of generation; unset: --prompts.", panel=SAMPLING
    )
    group_size: int = option(8, "Completions per question (G).", "-n", panel=SAMPLING, least=2)
    temperature: float = option(1.0, "Sampling temperature, of pi too; above 0.", panel=SAMPLING)
    max_gen_batches: int = option(
        10,
        "Rounds of generation per step until too few groups have an advantage is an error; "
        "0: no limit.",
        panel=SAMPLING,
        least=0,
    )

    method: str = option(
        "thr",
        "Advantage of each token: thr (Eqs. 4, 5), grpo, pos-only, neg-only, nthr, entropy-top, "
        "random.",
        panel=METHOD,
    )
    p: float = option(
        0.0, "THR(p): above 0 exploits, below 0 explores; between -1 and 1.", panel=METHOD
    )
    keep_entropy: float = option(
        0.0,
        "thr: the share of tokens with the highest entropy that keep their advantage too (App. B: "
        "0.2).",
        panel=METHOD,
    )
    entropy_share: float = option(0.2, "entropy-top: the share of tokens trained on.", panel=METHOD)
    advantage: str = option(
        "grpo",
        "Advantage of a completion: grpo (Eq. 1), dr-grpo (reward - mean), pkpo (Walder and "
        "Karkhanis 2025).",
        panel=METHOD,
    )
    adv_std: str = option("population", "Deviation in Eq. 1: population or sample.", panel=METHOD)
    pass_at_k: str = option(
        "none", "Pass@K advantage (Eq. 6): none, pure, mixed, static.", panel=METHOD
    )
    mix: str = option("paper", "mixed: paper (as printed) or chen (the cited one).", panel=METHOD)
    chi: float = option(0.2, "static: the share of the Pass@K advantage.", panel=METHOD)
    k: int = option(4, "K of Pass@K training and of pkpo.", panel=METHOD)
    renorm: str = option(
        "none", "Divisor of the loss: all tokens (none) or the selected ones.", panel=METHOD
    )
    adaptive_p: str = option(
        "none",
        "p over the steps: none, schedule (to --p-final), entropy (holds a target).",
        panel=METHOD,
    )
    p_final: float = option(0.0, "schedule: p of the last step.", panel=METHOD)
    target_entropy: float | None = option(
        None, "entropy: nats per token to hold; unset: that of the first step.", panel=METHOD
    )
    p_gain: float = option(
        0.5, "entropy: change of p per step and nat off the target.", panel=METHOD
    )
    p_limit: float = option(0.5, "entropy: |p| stays below.", panel=METHOD)

    tau: str = option("auto", "Threshold: auto, or a number in the unit of THR.", panel=THR)

    objective: str = option("grpo", "grpo (Eq. 2), gspo-token or gspo.", panel=OBJECTIVE)
    clip_low: float = option(0.2, "epsilon below.", panel=OBJECTIVE)
    clip_high: float = option(0.2, "epsilon above; Clip-High is 0.28.", panel=OBJECTIVE)
    dual_clip: float | None = option(
        None, "Bound of the loss of negative advantages, times |A|.", panel=OBJECTIVE
    )
    cov: str = option("none", "none, kl-cov or clip-cov (Cui et al. 2025).", panel=OBJECTIVE)
    cov_scope: str = option(
        "mini-batch",
        "Tokens that covariances run over: mini-batch or micro-batch.",
        panel=OBJECTIVE,
    )
    cov_share: float | None = option(
        None,
        "Share of tokens penalised or dropped; unset: 2e-3 kl-cov, 2e-4 clip-cov.",
        panel=OBJECTIVE,
    )
    cov_coef: float = option(1.0, "kl-cov: coefficient of the penalty.", panel=OBJECTIVE)
    cov_low: float = option(1.0, "clip-cov: least covariance of a candidate.", panel=OBJECTIVE)
    cov_high: float = option(5.0, "clip-cov: largest covariance of a candidate.", panel=OBJECTIVE)
    importance_correction: str = option(
        "none",
        "Weight of each token's loss where sampler and trainer differ: none, or tis (truncated "
        "importance sampling, Yao et al. 2025).",
        panel=OBJECTIVE,
    )
    tis_cap: float = option(2.0, "tis: C, the largest weight, at least 1.", panel=OBJECTIVE)
    kl_coef: float = option(
        1e-4, "Coefficient of the k3 penalty to the initial policy.", panel=OBJECTIVE
    )
    entropy_coef: float = option(0.0, "Coefficient of an entropy bonus.", panel=OBJECTIVE)
    aggregate: str = option(
        "group-token-mean",
        "group-token-mean (Eq. 2), token-mean, sequence-mean, dr-grpo; gspo takes sequence-mean.",
        panel=OBJECTIVE,
    )

    lr: float = option(1e-6, "Learning rate of AdamW.", panel=OPTIMISER)
    warmup_steps: int = option(
        0, "Steps over which the learning rate grows to its value.", panel=OPTIMISER, least=0
    )
    lr_decay: str = option(
        "none", "After the warm-up: none, or linear, to near 0 in the last step.", panel=OPTIMISER
    )
    weight_decay: float = option(0.01, "Of AdamW.", panel=OPTIMISER)
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm.", panel=OPTIMISER)
    mini_batch: int = option(64, "Size of a mini-batch: one update each.", panel=OPTIMISER)
    mini_batch_unit: str = option(
        "prompts", "What --mini-batch counts: prompts or rollouts.", panel=OPTIMISER
    )

    trace_every: int = option(
        1, "Steps between those whose rollouts and THR are stored; 0: none.", panel=OUTPUT, least=0
    )
    save_every: int = option(
        10, "Steps between checkpoints; 0: only the last.", panel=OUTPUT, least=0
    )
    keep_checkpoints: int | None = option(
        None, "Only the newest so many are kept; unset: all.", panel=OUTPUT
    )
    tensorboard: bool = option(default=False, meaning="Also write RUN/tensorboard.", panel=OUTPUT)
    wandb: str | None = option(None, "Also log to this project of Weights & Biases.", panel=OUTPUT)

    def __post_init__(self) -> None:
        RolloutConfig.__post_init__(self)
        _check_choices(self)
        _check_numbers(self)
        _check_combinations(self)

    @property
    def mini_batch_prompts(self) -> int:
        """Questions per mini-batch: a group is never split."""
        if self.mini_batch_unit == "prompts":
            return self.mini_batch
        return self.mini_batch // self.group_size

    @property
    def updates_per_step(self) -> int:
        """Optimiser updates of a step."""
        return math.ceil(self.prompts / self.mini_batch_prompts)

    @property
    def effective_cov_share(self) -> float:
        """Share of tokens that KL-Cov penalises or Clip-Cov drops."""
        default = 2e-3 if self.cov == "kl-cov" else 2e-4
        return default if self.cov_share is None else self.cov_share

    @property
    def needs_reference(self) -> bool:
        """Whether the initial policy is run at all."""
        return self.kl_coef > 0


def _check_choices(config: TrainConfig) -> None:
    for name, words in CHOICES.items():
        if getattr(config, name) not in words:
            raise UsageError(
                f"{flag_name(name)} {getattr(config, name)!r} does not exist",
                f"choose one of {', '.join(words)}",
            )
    if config.tau != "auto":
        try:
            value = float(config.tau)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise UsageError(f"--tau takes auto or a number, got {config.tau!r}")


def _check_numbers(config: TrainConfig) -> None:
    for name in ("p", "p_final"):
        if not abs(getattr(config, name)) < 1:
            raise UsageError(
                f"{flag_name(name)} must lie strictly between -1 and 1, got "
                f"{getattr(config, name)}",
                "beyond that the advantage of a token would change its sign",
            )
    for name in ("keep_entropy", "chi", "entropy_share", "p_limit"):
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{flag_name(name)} must lie in 0..1, got {getattr(config, name)}")
    _check_signs(config)


def _check_signs(config: TrainConfig) -> None:
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name != "beta" and isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{flag_name(item.name)} must be a finite number, got {value}")
    for name in ("temperature", "lr", "max_grad_norm"):
        if not getattr(config, name) > 0:
            raise UsageError(f"{flag_name(name)} must be positive, got {getattr(config, name)}")
    for name in ("kl_coef", "weight_decay", "cov_coef"):
        if getattr(config, name) < 0:
            raise UsageError(f"{flag_name(name)} must not be negative, got {getattr(config, name)}")


def _check_combinations(config: TrainConfig) -> None:
    """What cannot be combined, each pair by the words of both options."""
    tokenwise = config.method in TOKEN_METHODS
    gspo = config.objective != "grpo"
    one_advantage = config.advantage != "grpo" and config.pass_at_k != "none"
    refused = [
        (
            config.objective == "gspo" and tokenwise,
            f"--objective gspo has one advantage per completion, --method {config.method} one per "
            "token",
            "choose --objective gspo-token, or --method grpo",
        ),
        (
            config.keep_entropy > 0 and config.method != "thr",
            f"--keep-entropy adds tokens to those of --method thr, not of {config.method}",
            "leave one of them out",
        ),
        (
            gspo and config.aggregate != "sequence-mean",
            f"--objective {config.objective} takes --aggregate sequence-mean, not "
            f"{config.aggregate}",
            "leave --aggregate out",
        ),
        (
            gspo and config.cov != "none",
            f"--cov {config.cov} works on token ratios, --objective {config.objective} on those of "
            "completions",
            "choose --objective grpo",
        ),
        (
            gspo and config.dual_clip is not None,
            f"--dual-clip belongs to --objective grpo, not {config.objective}",
            "leave one of them out",
        ),
        (
            one_advantage,
            f"--pass-at-k {config.pass_at_k} reweighs the GRPO advantage, --advantage "
            f"{config.advantage} replaces it",
            "leave one of them out",
        ),
        (
            config.k > config.group_size
            and (config.pass_at_k != "none" or config.advantage == "pkpo"),
            f"--k {config.k} is larger than --group-size {config.group_size}",
            "Pass@K needs at least K completions per question",
        ),
        (
            config.adaptive_p != "none" and config.method != "thr",
            f"--adaptive-p {config.adaptive_p} changes p of --method thr, not of {config.method}",
            "choose --method thr",
        ),
        (
            config.mini_batch_unit == "rollouts" and config.mini_batch % config.group_size != 0,
            f"--mini-batch {config.mini_batch} rollouts would split a group of --group-size "
            f"{config.group_size}",
            "choose a multiple of the group size",
        ),
    ]
    for is_so, message, hint in refused:
        if is_so:
            raise UsageError(message, hint)
