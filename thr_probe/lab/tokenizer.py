"""The lab's byte-level BPE tokenizer: words become entries, digits stay single."""

from __future__ import annotations

import random
from itertools import islice

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from thr_probe.lab.completions import training_text
from thr_probe.lab.mix import FIRST_MIX
from thr_probe.lab.problems import prompt_text, worded_tasks

PAD = "<pad>"
EOS = "<eos>"
VOCAB_SIZE = 640
# A box opening, a word, one digit, a line break or a run of signs, each with the space before it.
PIECES = r" ?\\boxed\{| ?[A-Za-z]+| ?[0-9]|\n| ?[^\sA-Za-z0-9]+|\s+"


def sample_texts(num: int, seed: int) -> list[str]:
    """Prompts with their completions, for the tokenizer to learn from."""
    rng = random.Random(f"tokenizer/{seed}")
    pairs = islice(worded_tasks("train", seed, FIRST_MIX), num)
    return [
        prompt_text(question) + training_text(task, rng, FIRST_MIX).text for task, question in pairs
    ]


def train_tokenizer(*, num_texts: int, seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on fresh lab texts; encodes any bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_texts(num_texts, seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="left",
    )
