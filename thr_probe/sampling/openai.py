"""Sampling from a server that speaks OpenAI's completions: vLLM, SGLang, llama.cpp and others."""

from __future__ import annotations

import hashlib
import itertools
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from thr_probe.errors import DataError, UsageError
from thr_probe.sampling.choices import ChoiceReader
from thr_probe.sampling.dialect import Dialect, Introduction, choices_of, chosen_model
from thr_probe.sampling.protocol import Completion, Prompt, SamplingSettings
from thr_probe.sampling.server import Server
from thr_probe.sampling.server_errors import ServerError
from thr_probe.sampling.workers import run_jobs

MOST_TOGETHER = 32
"""Completions of one request: servers have limits, and a large group is better spread."""

EMPTY_ANSWERS = 3
"""Answers in a row without a usable completion before a prompt is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Completions to ask for in one request."""

    prompt: Prompt
    """The prompt."""
    first: int
    """The first of their rollouts."""
    count: int
    """How many."""


@dataclass(slots=True, kw_only=True)
class OpenAISampler:
    """Samples groups from a running server over HTTP.

    Prompts go as token ids, and the sampled ids come back where the server can tell them (vLLM,
    SGLang, llama.cpp); elsewhere the text is tokenized again and marked so. What the server
    understands is found out by a few requests of one token, once for a temperature and a top-p.

    Every request has a seed of its own, made of seed, prompt and rollout. Whether a server keeps to
    it is its own affair: batching on a GPU changes the last bits of logits.
    """

    base_url: str
    """Up to and with /v1."""
    tokenizer: PreTrainedTokenizerBase
    """The policy's."""
    eos_ids: Sequence[int]
    """Ids that end a completion of the policy."""
    policy_name: str
    """What the user called the policy; also the served model's name where several are served."""
    served_model: str | None = None
    """The served model's name; None: the only one there is."""
    concurrency: int = 64
    """Requests at once."""
    retries: int = 5
    """Repetitions of a request that failed in a way that may pass."""
    request_timeout: float = 600.0
    """Seconds that a request may take."""
    name: str = field(default="openai", init=False)
    """Recorded in the manifest."""
    server: Server = field(init=False)
    """The connection."""
    dialects: dict[tuple[float, float, bool], Dialect] = field(default_factory=dict, init=False)
    """What was found out, per temperature, top-p and whether groups have several rollouts."""
    told: set[str] = field(default_factory=set, init=False)
    """Warnings that were given already."""

    def __post_init__(self) -> None:
        """Check the address and the key.

        Raises:
            UsageError: an address that cannot be one, or that holds a password.
            PrerequisiteError: no HTTP client is installed, a key that cannot be sent.
        """
        self.server = Server(
            self.base_url,
            concurrency=self.concurrency,
            retries=self.retries,
            request_timeout=self.request_timeout,
        )

    def check(self) -> None:
        """See whether the server is there and serves the model, before anything is written.

        Raises:
            UsageError: several models are served and none was chosen.
            ServerError: no server, a wrong key or path, a model that is not served.
        """
        if self.server.models() is None:  # then only a request tells whether the path is right
            model = self.served_model or self.policy_name
            self.server.complete({"model": model, "prompt": "1", "max_tokens": 1})
        else:
            chosen_model(self.server, self.served_model, self.policy_name)

    def sample(
        self, prompts: Sequence[Prompt], settings: SamplingSettings
    ) -> list[list[Completion]]:
        """A group per prompt, in the order given.

        Raises:
            UsageError: completions longer than the server takes, a model to be chosen.
            ServerError: no server; a wrong model, path or key; one that keeps failing.
            DataError: the served model has another tokenizer than the policy.
        """
        if not prompts:
            return []
        asker = Introduction(
            server=self.server,
            tokenizer=self.tokenizer,
            policy_name=self.policy_name,
            settings=settings,
        )
        dialect = self._dialect(asker, prompts)
        _check_lengths(dialect, prompts, settings, self.server.address)
        reader = ChoiceReader(
            tokenizer=self.tokenizer, eos_ids=self.eos_ids, true_logprobs=dialect.true_logprobs
        )

        def work(job: Job, stop: threading.Event) -> list[Completion]:
            return self._completions(job, asker, dialect, reader, stop)

        jobs = _jobs(prompts, settings.group_size, together=dialect.several)
        found = run_jobs(jobs, work, threads=self.concurrency)
        self._tell([*asker.notes, *reader.notes])
        rollouts = itertools.chain.from_iterable(found)
        return [list(itertools.islice(rollouts, settings.group_size)) for _ in prompts]

    def _dialect(self, asker: Introduction, prompts: Sequence[Prompt]) -> Dialect:
        settings = asker.settings
        key = (settings.temperature, settings.top_p, settings.group_size > 1)
        if key not in self.dialects:
            dialect = asker.meet(self.served_model, prompts)
            if not dialect.gives_ids:
                asker.notes.append(
                    "the server tells no token ids: completions are tokenized again and marked "
                    "ids_source = retokenized"
                )
            if dialect.top is None:
                asker.notes.append("the server gives no log-probabilities of what it sampled")
            self._tell(asker.notes)
            self.dialects[key] = dialect
        return self.dialects[key]

    def _completions(
        self,
        job: Job,
        asker: Introduction,
        dialect: Dialect,
        reader: ChoiceReader,
        stop: threading.Event,
    ) -> list[Completion]:
        """Ask until there are as many as wanted; what is missing gets another seed."""
        found: list[Completion] = []
        empty = 0
        settings = asker.settings
        while len(found) < job.count:
            body = asker.body(
                dialect,
                job.prompt,
                n=job.count - len(found),
                seed=request_seed(
                    settings.seed, job.prompt.prompt_id, job.first + len(found), empty
                ),
                max_tokens=settings.max_new_tokens,
            )
            answer = self.server.complete(body, stop=stop)
            read = [
                reader.read(choice, max_tokens=settings.max_new_tokens)
                for choice in choices_of(answer)
            ]
            usable = [completion for completion in read if completion is not None]
            found += usable[: job.count - len(found)]
            empty = 0 if usable else empty + 1
            if empty == EMPTY_ANSWERS:
                raise ServerError(
                    f"{self.server.address} gave no completion of prompt {job.prompt.prompt_id}, "
                    f"{empty} times",
                    hint="see the server's log, or leave this problem out",
                )
        return found

    def _tell(self, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self.told:
                self.told.add(note)
                warnings.warn(f"{self.server.address}: {note}", stacklevel=3)


def request_seed(seed: int, prompt_id: str, rollout: int, attempt: int = 0) -> int:
    """The seed of a request: 31 bits, which every server's integers hold."""
    text = f"{seed}\x00{prompt_id}\x00{rollout}\x00{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _jobs(prompts: Sequence[Prompt], group_size: int, *, together: bool) -> list[Job]:
    """A request per group, or per rollout where a server gives one completion at a time."""
    count = MOST_TOGETHER if together else 1
    return [
        Job(prompt=prompt, first=first, count=min(count, group_size - first))
        for prompt in prompts
        for first in range(0, group_size, count)
    ]


def _check_lengths(
    dialect: Dialect, prompts: Sequence[Prompt], settings: SamplingSettings, address: str
) -> None:
    shortest = min(prompts, key=lambda prompt: len(prompt.token_ids))
    if not shortest.token_ids:
        raise DataError(f"prompt {shortest.prompt_id} has no token")
    if dialect.max_length is None:
        return
    longest = max(len(prompt.token_ids) for prompt in prompts)
    room = dialect.max_length - longest
    if room < settings.max_new_tokens:
        raise UsageError(
            f"{dialect.model} at {address} takes {dialect.max_length} tokens; the longest prompt "
            f"has {longest}, and completions may have {settings.max_new_tokens}",
            hint=f"use --max-new-tokens {room}, or start the server with a longer --max-model-len"
            if room > 0
            else "use --max-prompt-tokens, or start the server with a longer --max-model-len",
        )
