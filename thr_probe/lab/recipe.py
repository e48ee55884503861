"""Make the lab's policy: `python -m thr_probe.lab.recipe --out DIR`, or only `--measure DIR`.

Trains a tokenizer and a small Qwen2 model on texts that are written while it learns, one seeded
command on one CPU core, then measures the result on held-out problems and writes its card.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2ForCausalLM

from thr_probe.lab.card import write_card, write_record
from thr_probe.lab.measure import MeasureSizes, load_lab_policy, measure
from thr_probe.lab.tokenizer import train_tokenizer
from thr_probe.lab.training import RecipeSettings, Stage, new_policy, stages, train

SAVE_EVERY = 250


def save_policy(
    policy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path
) -> None:
    """Write a model directory: float16 weights on disk, read as float32 by default."""
    stored = Qwen2ForCausalLM(policy.config)
    stored.load_state_dict(policy.state_dict())
    stored.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=256,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    stored.half().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    amend(directory / "config.json", dtype="float32")
    # AutoTokenizer lays Qwen2's own splitting over every qwen2 tokenizer.json unless an (empty)
    # auto_map is present; with it, the file is taken as it stands
    amend(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, None]})


def amend(path: Path, **values: object) -> None:
    """Set entries of a JSON file."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def run_stage(
    policy: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    settings: RecipeSettings,
    directory: Path,
) -> float:
    """Train one stage; from its update 250 on the directory holds a loadable policy."""

    def report(update: int, loss: float, seconds: float) -> None:
        sys.stderr.write(f"update {update}/{stage.updates} loss {loss:.4f} {seconds:.0f} s\n")
        sys.stderr.flush()
        if update % SAVE_EVERY == 0 and update < stage.updates:
            save_whole(policy, tokenizer, directory)

    loss = train(policy, tokenizer, stage, settings, report=report)
    save_whole(policy, tokenizer, directory)
    return loss


def make_policy(settings: RecipeSettings, directory: Path) -> None:
    """Train tokenizer and model in two stages; the second starts from what the first saved."""
    started = time.monotonic()
    tokenizer = train_tokenizer(num_texts=settings.tokenizer_texts, seed=settings.seed)
    first, second = stages(settings)
    run_stage(new_policy(settings, tokenizer), tokenizer, first, settings, directory)
    policy, _ = load_lab_policy(directory)
    loss = run_stage(policy, tokenizer, second, settings, directory)
    write_record(directory, settings, loss=loss, seconds=time.monotonic() - started)


def save_whole(
    policy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path
) -> None:
    """Save beside, then swap, so that the directory is loadable at any moment."""
    fresh = directory.with_name(directory.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    save_policy(policy, tokenizer, fresh)
    shutil.rmtree(directory, ignore_errors=True)
    fresh.rename(directory)


def argument_parser() -> argparse.ArgumentParser:
    """One option per field of RecipeSettings and MeasureSizes, plus the directory."""
    parser = argparse.ArgumentParser(prog="python -m thr_probe.lab.recipe", description=__doc__)
    directory = parser.add_mutually_exclusive_group(required=True)
    directory.add_argument("--out", type=Path, help="directory of the new policy")
    directory.add_argument(
        "--measure", type=Path, help="only measure this policy, rewrite its card"
    )
    for defaults in (RecipeSettings(), MeasureSizes()):
        for field in fields(defaults):
            default = getattr(defaults, field.name)
            option = "--" + field.name.replace("_", "-")
            parser.add_argument(option, type=type(default), default=default)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the recipe."""
    given = vars(argument_parser().parse_args(argv))
    torch.set_num_threads(1)
    settings = RecipeSettings(**{field.name: given[field.name] for field in fields(RecipeSettings)})
    sizes = MeasureSizes(**{field.name: given[field.name] for field in fields(MeasureSizes)})
    directory: Path = given["measure"] or given["out"]
    if given["out"]:
        make_policy(settings, directory)
    write_card(directory, measure(directory, sizes))
    sys.stderr.write(f"card: {directory / 'README.md'}\n")


if __name__ == "__main__":
    main()
