"""Make the lab's policy: `python -m thr_probe.lab.recipe --out DIR`.

Trains a tokenizer and a small Qwen2 model on texts that are written while it learns, one seeded
command on one CPU core, then measures the result on held-out problems and writes its card.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2ForCausalLM

from thr_probe.lab.tokenizer import train_tokenizer
from thr_probe.lab.training import RecipeSettings, new_policy, train

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
    config_path = directory / "config.json"
    config = json.loads(config_path.read_text())
    config["dtype"] = "float32"
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_policy(settings: RecipeSettings, directory: Path) -> None:
    """Train tokenizer and model; from update 250 on the directory holds a loadable policy."""
    tokenizer = train_tokenizer(num_texts=settings.tokenizer_texts, seed=settings.seed)
    policy = new_policy(settings, tokenizer)

    def report(update: int, loss: float, seconds: float) -> None:
        sys.stderr.write(f"update {update}/{settings.updates} loss {loss:.4f} {seconds:.0f} s\n")
        sys.stderr.flush()
        if update % SAVE_EVERY == 0 and update < settings.updates:
            save_whole(policy, tokenizer, directory)

    train(policy, tokenizer, settings, report=report)
    save_whole(policy, tokenizer, directory)


def save_whole(
    policy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path
) -> None:
    """Save beside, then swap, so that the directory is loadable at any moment."""
    fresh = directory.with_name(directory.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    save_policy(policy, tokenizer, fresh)
    shutil.rmtree(directory, ignore_errors=True)
    fresh.rename(directory)


def parse_arguments(argv: Sequence[str] | None) -> tuple[Path, RecipeSettings]:
    """One option per field of RecipeSettings, plus --out."""
    parser = argparse.ArgumentParser(prog="python -m thr_probe.lab.recipe", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the new policy")
    defaults = RecipeSettings()
    for field in fields(RecipeSettings):
        default = getattr(defaults, field.name)
        parser.add_argument(
            "--" + field.name.replace("_", "-"), type=type(default), default=default
        )
    values = vars(parser.parse_args(argv))
    return values.pop("out"), RecipeSettings(**values)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the recipe."""
    directory, settings = parse_arguments(argv)
    torch.set_num_threads(1)
    make_policy(settings, directory)


if __name__ == "__main__":
    main()
