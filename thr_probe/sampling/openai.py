"""Sampling from a server that speaks OpenAI's completions: vLLM, SGLang, llama.cpp and others."""

from __future__ import annotations

import functools
import hashlib
import itertools
import threading
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from thr_probe.errors import DataError, UsageError
from thr_probe.sampling.choices import ChoiceReader
from thr_probe.sampling.dialect import Dialect, Introduction, choices_of, chosen_model
from thr_probe.sampling.protocol import Completion, Prompt, SamplingSettings
from thr_probe.sampling.server import Server
from thr_probe.sampling.server_errors import ServerError
from thr_probe.sampling.workers import RequestPool

MOST_TOGETHER = 32
"""Completions of one request: servers have limits, and a large group is better spread."""

AHEAD = 4
"""Requests begun beforehand, in units of `concurrency`: the slowest completion of a shard takes
several times as long as most, and what was begun but not yet written is lost where a run ends."""

FEW_GROUPS = 4
"""Fewer groups of completions that are all alike are no reason for suspicion."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What is the same for all requests of the same settings."""

    asker: Introduction
    """Makes requests."""
    dialect: Dialect
    """What the server understands."""
    reader: ChoiceReader
    """Reads its answers."""


@dataclass(slots=True, kw_only=True)
class OpenAISampler:
    """Samples groups from a running server over HTTP.

    Prompts go as token ids, and the sampled ids come back where the server can tell them (vLLM,
    SGLang, llama.cpp); elsewhere the text is tokenized again and marked so. What the server
    understands is found out by a few small requests, once for each settings.

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
    pool: RequestPool[list[Completion]] = field(init=False)
    """Sends the requests."""
    sessions: dict[SamplingSettings, Session] = field(default_factory=dict, init=False)
    """What was found out, for each settings."""
    begun: dict[tuple[SamplingSettings, str], list[Future[list[Completion]]]] = field(
        default_factory=dict, init=False
    )
    """Requests on their way whose group nobody asked for yet, by settings and prompt."""
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
        self.pool = RequestPool(self.concurrency)

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
        session = self._session(prompts, settings)
        _check_lengths(session.dialect, prompts, settings, self.server.address)
        futures = [
            self.begun.pop((settings, prompt.prompt_id), []) or self._begin(prompt, session)
            for prompt in prompts
        ]
        try:
            for future in as_completed(itertools.chain.from_iterable(futures)):
                future.result()
        except BaseException:
            self._abandon()
            raise
        groups = [[item for future in group for item in future.result()] for group in futures]
        self._tell([*session.reader.notes, *_alike(groups, settings)])
        return groups

    def expect(self, prompts: Iterable[Prompt], settings: SamplingSettings) -> None:
        """Begin with prompts that will be asked for next, as many as keep the server busy.

        So the server need not wait while a shard's last completions come, are verified and scored.

        Raises:
            as `sample`, on the first call.
        """
        most = AHEAD * self.concurrency
        ahead = list(itertools.islice(prompts, most))
        if not ahead:
            return
        session = self._session(ahead, settings)
        _check_lengths(session.dialect, ahead, settings, self.server.address)
        running = sum(map(len, self.begun.values()))
        for prompt in ahead:
            key = (settings, prompt.prompt_id)
            if running >= most:
                return
            if key not in self.begun:
                self.begun[key] = self._begin(prompt, session)
                running += len(self.begun[key])

    def _session(self, prompts: Sequence[Prompt], settings: SamplingSettings) -> Session:
        if settings not in self.sessions:
            asker = Introduction(
                server=self.server,
                tokenizer=self.tokenizer,
                policy_name=self.policy_name,
                settings=settings,
            )
            dialect = asker.meet(self.served_model, prompts)
            self._tell([*asker.notes, *_limits(dialect)])
            reader = ChoiceReader(
                tokenizer=self.tokenizer, eos_ids=self.eos_ids, true_logprobs=dialect.true_logprobs
            )
            self.sessions[settings] = Session(asker=asker, dialect=dialect, reader=reader)
        return self.sessions[settings]

    def _begin(self, prompt: Prompt, session: Session) -> list[Future[list[Completion]]]:
        jobs = _jobs(prompt, session.asker.settings.group_size, together=session.dialect.several)
        # bound now: the sampler itself is not held, so that its threads end with it
        return [
            self.pool.submit(functools.partial(_completions, self.server, session, job))
            for job in jobs
        ]

    def _abandon(self) -> None:
        """Forget what is on its way; a later call begins anew."""
        self.pool.abandon()
        self.pool = RequestPool(self.concurrency)
        self.begun.clear()

    def _tell(self, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self.told:
                self.told.add(note)
                warnings.warn(f"{self.server.address}: {note}", stacklevel=3)


def _completions(
    server: Server, session: Session, job: Job, stop: threading.Event
) -> list[Completion]:
    """Ask until there are as many as wanted; what is missing gets another seed."""
    found: list[Completion] = []
    empty, settings = 0, session.asker.settings
    while len(found) < job.count:
        body = session.asker.body(
            session.dialect,
            job.prompt,
            n=job.count - len(found),
            seed=request_seed(settings.seed, job.prompt.prompt_id, job.first + len(found), empty),
            max_tokens=settings.max_new_tokens,
        )
        answer = server.complete(body, stop=stop)
        read = [
            session.reader.read(choice, max_tokens=settings.max_new_tokens)
            for choice in choices_of(answer)
        ]
        usable = [completion for completion in read if completion is not None]
        found += usable[: job.count - len(found)]
        empty = 0 if usable else empty + 1
        if empty == EMPTY_ANSWERS:
            raise ServerError(
                f"{server.address} gave no completion of prompt {job.prompt.prompt_id}, "
                f"{empty} times",
                hint="see the server's log, or leave this problem out",
            )
    return found


def _limits(dialect: Dialect) -> list[str]:
    """What a trace of this server will lack."""
    lacking = []
    if not dialect.gives_ids:
        lacking.append(
            "the server tells no token ids: completions are tokenized again and marked "
            "ids_source = retokenized"
        )
    if dialect.top is None:
        lacking.append("the server gives no log-probabilities of what it sampled")
    return lacking


def _alike(groups: Sequence[Sequence[Completion]], settings: SamplingSettings) -> list[str]:
    """Whether a server seems to draw every completion of a request with the same seed."""
    if settings.temperature == 0 or settings.group_size == 1 or len(groups) < FEW_GROUPS:
        return []
    if any(len({tuple(item.token_ids) for item in group}) > 1 for group in groups):
        return []
    return [
        f"in all {len(groups)} groups the completions are alike: the policy is very sure, or the "
        "server does not draw"
    ]


def request_seed(seed: int, prompt_id: str, rollout: int, attempt: int = 0) -> int:
    """The seed of a request: 31 bits, which every server's integers hold."""
    text = f"{seed}\x00{prompt_id}\x00{rollout}\x00{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _jobs(prompt: Prompt, group_size: int, *, together: bool) -> list[Job]:
    """A request per group, or per rollout where a server gives one completion at a time."""
    count = MOST_TOGETHER if together else 1
    return [
        Job(prompt=prompt, first=first, count=min(count, group_size - first))
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
