"""TRL's side: the same steps by GRPOTrainer. Needs TRL, see README.md.

Called by train_step.py with a line of JSON; prints one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from step_sizes import PHASES, Report, Sizes, Step, peak_rss
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from thr_probe.lab import policy_directory
from thr_probe.policy import Policy, load_policy
from thr_probe.problems import load_problems, load_verifier
from thr_probe.prompts import TokenizedProblem, tokenized
from thr_probe.train.rollouts import PromptStream


@dataclass(slots=True)
class Marks:
    """Time, tokens and parts as they add up over a training run."""

    tokens: int = 0
    """Completion tokens so far."""
    phases: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    """Wall time of each part so far; updates are what is left of a step."""
    taken: list[tuple[float, float, int, dict[str, float]]] = field(default_factory=list)
    """Wall time, processor time, tokens and parts at the end of each step."""

    def take(self) -> None:
        """A step has ended."""
        now = time.perf_counter(), time.process_time()
        self.taken.append((*now, self.tokens, dict(self.phases)))

    def steps(self) -> list[Step]:
        """What lies between the ends of one step and the next."""
        made = []
        for before, after in zip(self.taken, self.taken[1:], strict=False):
            seconds = after[0] - before[0]
            phases = {name: after[3][name] - before[3][name] for name in PHASES}
            phases["update"] = seconds - sum(phases.values())
            made.append(
                Step(
                    seconds=seconds,
                    cpu=after[1] - before[1],
                    tokens=after[2] - before[2],
                    phases=phases,
                )
            )
        return made


class _AtStepEnds(TrainerCallback):
    """Takes a mark where all updates of a rollout batch are done."""

    def __init__(self, marks: Marks, updates: int) -> None:
        self.marks, self.updates = marks, updates

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        if state.global_step % self.updates == 0:
            self.marks.take()


def main() -> None:
    """Time the steps that the command line's JSON asks for."""
    call = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    print(report(Sizes(**call["sizes"])).to_json())


def report(sizes: Sizes) -> Report:
    """Time some steps."""
    marks = Marks()
    verifier = load_verifier(sizes.verifier, num_workers=1)

    def reward(completions: Sequence[str], **columns: Any) -> list[float]:
        marks.tokens += sum(map(len, columns["completion_ids"]))
        verdicts = verifier.verify(completions, [tuple(gold) for gold in columns["gold"]])
        return [verdict.reward for verdict in verdicts]

    with verifier, tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(sizes, reward, folder)
        trainer.add_callback(_AtStepEnds(marks, sizes.updates))
        _time_parts(trainer, marks)
        loaded = peak_rss()
        trainer.train()
    return Report(steps=marks.steps(), loaded=loaded, peak=peak_rss())


def trainer_of(sizes: Sizes, reward: Callable[..., list[float]], folder: str) -> GRPOTrainer:
    """GRPOTrainer with the sizes, problems and order of problems of the other side."""
    policy = load_policy(sizes.model, device=sizes.device, dtype=sizes.dtype)
    policy.tokenizer.padding_side = "left"
    rows = [
        {"prompt": task.problem.prompt_text, "gold": list(task.problem.accepted_answers)}
        for task in _tasks(sizes, policy)
    ]
    config = GRPOConfig(
        output_dir=folder,
        # one optimiser update per batch, several batches per generation, as on the other side
        per_device_train_batch_size=sizes.rows_per_update,
        gradient_accumulation_steps=1,
        steps_per_generation=sizes.updates,
        num_iterations=1,
        num_generations=sizes.group_size,
        max_steps=sizes.updates * (1 + sizes.steps),
        max_completion_length=sizes.max_new_tokens,
        temperature=1.0,
        shuffle_dataset=False,
        beta=sizes.kl_coef,
        use_bias_correction_kl=False,
        epsilon=0.2,
        loss_type="bnpo",  # the mean over the tokens of the batch: token-mean
        learning_rate=sizes.lr,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        max_grad_norm=1.0,
        gradient_checkpointing=False,  # on by default; the other side keeps its activations
        bf16=sizes.dtype == "bfloat16",
        use_cpu=sizes.device == "cpu",
        model_init_kwargs={"dtype": sizes.dtype},
        seed=sizes.seed,
        dataloader_num_workers=0,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )
    return GRPOTrainer(
        model=str(policy_directory()) if sizes.model == "lab" else sizes.model,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
    )


def _tasks(sizes: Sizes, policy: Policy) -> list[TokenizedProblem]:
    """The problems that the other side takes, in its order."""
    problem_set = load_problems(
        "lab:train", template="lab", max_prompts=4000, tokenizer=policy.tokenizer
    )
    tasks, _ = tokenized(
        problem_set, policy, max_prompt_tokens=200, max_new_tokens=sizes.max_new_tokens
    )
    stream = PromptStream(tasks=tasks, seed=sizes.seed)
    taken = stream.take(sizes.prompts * (1 + sizes.steps), set())
    for task in taken:  # TRL tokenises the text itself
        assert policy.tokenizer(task.problem.prompt_text)["input_ids"] == task.token_ids
    return taken


def _time_parts(trainer: GRPOTrainer, marks: Marks) -> None:
    """Count sampling, verification and the two no-grad passes apart from the updates."""

    def timed(name: str, phase_of: Callable[..., str | None]) -> None:
        inner = getattr(trainer, name)

        def call(*arguments: Any, **options: Any) -> Any:
            before = time.perf_counter()
            result = inner(*arguments, **options)
            phase = phase_of(*arguments)
            if phase is not None:
                marks.phases[phase] += time.perf_counter() - before
            return result

        setattr(trainer, name, call)

    def which_pass(model: object, *_: object) -> str | None:
        if torch.is_grad_enabled():
            return None
        return "ref" if model is trainer.ref_model else "old"

    timed("_generate", lambda *_: "gen")
    timed("_calculate_rewards", lambda *_: "gen")
    timed("_get_per_token_logps_and_entropies", which_pass)


if __name__ == "__main__":
    main()
