"""Options of `thr-probe eval`, and what they exclude. Nothing here loads torch."""

from __future__ import annotations

from dataclasses import dataclass

from thr_probe.config import (
    POLICY,
    PROBLEMS,
    SAMPLING,
    VERIFIER,
    Options,
    RolloutConfig,
    config_dict,
    option,
    same_option,
)
from thr_probe.engine_options import check_engine
from thr_probe.errors import UsageError
from thr_probe.sampling import SamplingSettings

FINAL = "final"
BEST = "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig(Options):
    """Options of `thr-probe eval`; the defaults are METHOD 8's."""

    checkpoints: str = option(
        FINAL,
        "Of a training run: final (RUN/model), all, or steps separated by commas (final is one).",
        panel=POLICY,
    )
    select: str = option(
        FINAL,
        "final, or best: also print the checkpoint with the highest greedy average; it is chosen "
        "on the problems it is reported on, so its numbers are optimistic.",
        panel=POLICY,
    )
    revision: str | None = option(None, "Revision of a hub model.", panel=POLICY)
    adapter: str | None = option(
        None, "LoRA adapter, a directory or hub id, merged on loading.", panel=POLICY
    )
    device: str = option("auto", "auto, cpu or cuda.", panel=POLICY)
    dtype: str = option(
        "auto", "float32, bfloat16, or auto: bfloat16 on CUDA, else float32.", panel=POLICY
    )
    batch_tokens: int = option(65536, "Tokens per forward batch.", panel=POLICY)
    dataset: str | None = option(
        None,
        "Sets separated by commas: aime24, aime25, amc23, math500, minerva, olympiadbench, or what "
        "collect takes. Unset: lab:test for the lab's policy, else these six.",
        panel=PROBLEMS,
    )
    data_dir: str | None = option(
        None,
        "Folder of benchmark files, NAME.parquet, .jsonl or .csv; what is not there comes from "
        "the hub.",
        panel=PROBLEMS,
    )
    template: str | None = option(
        None,
        "qwen-boxed, abel, plain, chat or lab; unset: that of the training run, lab for the lab, "
        "else qwen-boxed.",
        panel=PROBLEMS,
    )
    question_column: str | None = option(
        None, "Column of the question, where it is not found.", panel=PROBLEMS
    )
    answer_column: str | None = option(
        None, "Column of the gold answer, where it is not found.", panel=PROBLEMS
    )
    max_prompts: int | None = option(
        None, "Only the first so many problems of each set.", panel=PROBLEMS
    )
    max_prompt_tokens: int = option(
        1024, "Problems with a longer prompt are skipped and counted.", panel=PROBLEMS
    )
    samples: int = option(
        256, "Completions per problem of Pass@K (n); 0: greedy only.", panel=SAMPLING, least=0
    )
    k: str | None = option(
        None, "Values of K separated by commas; unset: 1, 2, 4 ... n.", panel=SAMPLING
    )
    pass_at_k_dataset: str | None = option(
        None,
        "Sets of Pass@K. Unset: of --dataset those of aime24, aime25, amc23, and those that are no "
        "benchmark.",
        panel=SAMPLING,
    )
    temperature: float = option(1.0, "Sampling temperature of Pass@K.", panel=SAMPLING)
    top_p: float = option(1.0, "Nucleus of Pass@K.", panel=SAMPLING)
    max_new_tokens: int | None = option(
        None,
        "Longest completion; a longer one is cut off and wrong. Unset: that of the training run, "
        "else 3072, or what the context leaves.",
        panel=SAMPLING,
    )
    seed: int = option(0, "Seed of the sampling.", panel=SAMPLING)
    shard_prompts: int | None = option(
        None,
        "Problems per shard: sampled together, saved together. Unset: about 256 completions, at "
        "most 32 problems.",
        panel=SAMPLING,
    )
    engine: str = same_option(RolloutConfig, "engine")
    tensor_parallel: int | None = same_option(RolloutConfig, "tensor_parallel")
    gpu_memory: float | None = same_option(RolloutConfig, "gpu_memory")
    max_num_seqs: int | None = same_option(RolloutConfig, "max_num_seqs")
    base_url: str | None = same_option(RolloutConfig, "base_url")
    served_model: str | None = same_option(RolloutConfig, "served_model")
    concurrency: int | None = same_option(RolloutConfig, "concurrency")
    retries: int | None = same_option(RolloutConfig, "retries")
    request_timeout: float | None = same_option(RolloutConfig, "request_timeout")
    verifier: str = option(
        "math", "math, or module:function called with (completion, answer).", panel=VERIFIER
    )
    correct_above: float | None = option(
        None, "Rewards above this count as correct; for rewards other than 0 and 1.", panel=VERIFIER
    )
    verify_workers: int = option(2, "Processes of the verifier.", panel=VERIFIER)

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        check_engine(config_dict(self))
        if self.select not in {FINAL, BEST}:
            raise UsageError(f"--select is final or best, got {self.select!r}")
        if self.samples == 0:
            for flag, value in (("--pass-at-k-dataset", self.pass_at_k_dataset), ("--k", self.k)):
                if value is not None:
                    raise UsageError(f"{flag} needs samples, but --samples is 0", "choose one")
        elif self.temperature == 0:
            raise UsageError(
                "--temperature 0 gives the same completion every time, so Pass@K has no meaning",
                "leave it at 1, or ask for greedy accuracy alone with --samples 0",
            )
        else:  # the sampler's own checks, before the greedy sets are answered
            SamplingSettings(
                group_size=self.samples, temperature=self.temperature, top_p=self.top_p
            )


def listed(text: str, flag: str) -> list[str]:
    """The words of an option separated by commas.

    Raises:
        UsageError: none, an empty one, or one twice.
    """
    words = [word.strip() for word in text.split(",")]
    repeated = [word for word in words if words.count(word) > 1]
    if not all(words) or repeated:
        what = f"{repeated[0]} twice" if repeated and repeated[0] else "an empty name"
        raise UsageError(f"{flag} {text!r} holds {what}", "separate the names by single commas")
    return words


def values_of_k(config: EvalConfig) -> list[int]:
    """The K of Pass@K, ascending: as asked for, else the powers of two up to n, and n.

    Raises:
        UsageError: no whole number, or one outside 1 ... n.

    >>> values_of_k(EvalConfig(samples=12)), values_of_k(EvalConfig(samples=0))
    ([1, 2, 4, 8, 12], [])
    """
    n = config.samples
    if config.k is None:
        return sorted({*(2**exponent for exponent in range(n.bit_length())), *([n] if n else [])})
    words = listed(config.k, "--k")
    wrong = [word for word in words if not word.isdigit() or int(word) < 1]
    if wrong:
        raise UsageError(f"--k takes whole numbers from 1, got {wrong[0]!r}")
    largest = max(int(word) for word in words)
    if largest > n:
        raise UsageError(
            f"Pass@{largest} needs {largest} completions per problem, but --samples is {n}",
            f"choose K up to {n}, or raise --samples",
        )
    return sorted(int(word) for word in words)
