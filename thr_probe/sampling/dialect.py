"""What a server understands, found out once by small requests before the many."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from thr_probe.errors import DataError, UsageError
from thr_probe.policy.tokens import decode, encode_prompt
from thr_probe.sampling.choices import Choice, ids_of, likeliest, pieces_of
from thr_probe.sampling.logprob_probe import what_is_wrong
from thr_probe.sampling.protocol import Prompt, SamplingSettings
from thr_probe.sampling.server import Server
from thr_probe.sampling.server_errors import RefusedError, wrong_model

EXTRAS = {
    # ids beside text, in the words of vLLM and SGLang, and of older vLLM
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    # servers take these from the model's generation_config.json where nothing else is said
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
"""What is asked beyond OpenAI's own parameters."""

PROBE_PROMPTS = 8
"""Prompts on which the kind of log-probabilities is looked for, at most."""

SOME_TOKENS = 16
"""Of two draws that are compared."""

TOP = 5
"""Likeliest tokens to compare; OpenAI's limit."""

NOT_UNDERSTOOD = frozenset({400, 413, 415, 422, 501})
"""Statuses of requests that another form may spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a server is asked, and what its answers mean."""

    model: str
    """The served model's name."""
    max_length: int | None = None
    """Tokens that it takes, prompt and completion together, where it says."""
    prompts_as_ids: bool = True
    """Whether prompts are sent as ids; else as text, which the server tokenizes itself."""
    extras: bool = True
    """Whether EXTRAS are sent."""
    several: bool = True
    """Whether `n` completions come for one request."""
    top: int | None = 0
    """Value of `logprobs`; None: not asked for."""
    gives_ids: bool = True
    """Whether completions come with their ids."""
    true_logprobs: bool = True
    """Whether log-probabilities are those of the distribution drawn from."""


@dataclass(slots=True, kw_only=True)
class Introduction:
    """Meets a server: which model, which form of request, which tokenizer, which logprobs."""

    server: Server
    """To be asked."""
    tokenizer: PreTrainedTokenizerBase
    """The policy's."""
    policy_name: str
    """What the user called the policy."""
    settings: SamplingSettings
    """Of the requests to come."""
    notes: list[str] = field(default_factory=list)
    """What a user should know."""

    def meet(self, served_model: str | None, prompts: Sequence[Prompt]) -> Dialect:
        """Find the dialect by small requests.

        Raises:
            UsageError: several models are served and none was chosen.
            ServerError: no server, a wrong model, path or key, or nothing is understood.
            DataError: the served model has another tokenizer than the policy.
        """
        known = chosen_model(self.server, served_model, self.policy_name)
        dialect = self._with_form(known, prompts[0])
        if dialect.several and self._repeats_itself(dialect, prompts[0]):
            dialect = replace(dialect, several=False)
        dialect = self._with_tokenizer(dialect, prompts)
        return self._with_logprobs(dialect, prompts)

    def _with_form(self, known: Dialect, prompt: Prompt) -> Dialect:
        """The first form of a request that is taken, the most telling first."""
        refused: RefusedError | None = None
        for dialect in self._forms(known):
            try:
                choices = self._ask(dialect, prompt, n=2 if dialect.several else 1)
            except RefusedError as refusal:
                if refusal.status not in NOT_UNDERSTOOD:
                    raise
                refused = refusal  # the plainest form comes last: its reason counts
                continue
            if not choices:
                continue
            if refused and not dialect.prompts_as_ids:
                self.notes.append(
                    "the server takes no prompts as token ids: they are sent as text, and its own "
                    "tokenization counts"
                )
            understood = replace(
                dialect, several=len(choices) > 1, gives_ids=ids_of(choices[0]) is not None
            )
            return self._with_top(understood, prompt, choices[0])
        raise refused or DataError(f"{self.server.address} answers without completions")

    def _repeats_itself(self, dialect: Dialect, prompt: Prompt) -> bool:
        """Whether the completions of one request are all drawn with its seed, so are the same.

        SGLang with --enable-deterministic-inference does so.
        """
        if self.settings.temperature == 0:
            return False
        body = self.body(dialect, prompt, n=2, seed=0, max_tokens=SOME_TOKENS)
        # so hot that no two draws agree by chance
        choices = choices_of(self.server.complete(body | {"temperature": 2.0, "top_p": 1.0}))
        drawn = {str(ids_of(choice) or choice.get("text")) for choice in choices}
        return len(drawn) == 1

    def _forms(self, known: Dialect) -> Iterator[Dialect]:
        several = (True, False) if self.settings.group_size > 1 else (False,)
        for many, top, as_ids, extras in itertools.product(
            several, (0, None), (True, False), (True, False)
        ):
            yield replace(known, several=many, top=top, prompts_as_ids=as_ids, extras=extras)

    def _with_top(self, dialect: Dialect, prompt: Prompt, choice: Choice) -> Dialect:
        """Whether logprobs come, for 0 or for 1 at least."""
        if pieces_of(choice) or dialect.top is None:
            return dialect
        asking = replace(dialect, top=1)
        try:
            choices = self._ask(asking, prompt)
        except RefusedError:
            choices = []
        if choices and pieces_of(choices[0]):
            return replace(asking, gives_ids=ids_of(choices[0]) is not None)
        return replace(dialect, top=None)

    def _with_tokenizer(self, dialect: Dialect, prompts: Sequence[Prompt]) -> Dialect:
        """Compare the server's tokens of a prompt's text with the policy's.

        A server that shows no ids is judged by its count of tokens; where even that differs or is
        missing, prompts go as text: ids of a foreign tokenizer would be nonsense.
        """
        prompt = next((one for one in prompts if self._is_plain(one)), None)
        if prompt is None or not dialect.prompts_as_ids:
            return dialect
        asking = replace(dialect, prompts_as_ids=False)
        answer = self.server.complete(self.body(asking, prompt, n=1, seed=0, max_tokens=1))
        choices = choices_of(answer)
        found = choices[0].get("prompt_token_ids") if choices else None
        mine = list(prompt.token_ids)
        without = self._without_bos(mine)
        if isinstance(found, list):
            if self._without_bos(found) == without:
                return dialect
            raise self._other_tokenizer(dialect, prompt, found)
        count = (answer.get("usage") or {}).get("prompt_tokens")
        if count in {len(mine), len(without), len(without) + 1}:
            return dialect
        self.notes.append(
            "the server does not show which tokens it reads: prompts are sent as text, and its own "
            "tokenization counts"
        )
        return asking

    def _other_tokenizer(self, dialect: Dialect, prompt: Prompt, found: list[int]) -> DataError:
        text = self.prompt_text(prompt)
        return DataError(
            f"the tokenizer of the served model {dialect.model!r} is not that of the policy "
            f"{self.policy_name!r}: {text[:40]!r} begins with the ids {found[:6]} there, "
            f"{list(prompt.token_ids)[:6]} here",
            hint="serve the policy itself, or name the served model's weights with --model",
        )

    def _without_bos(self, ids: Sequence[int]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        return list(ids[1:] if ids and bos is not None and ids[0] == bos else ids)

    def _is_plain(self, prompt: Prompt) -> bool:
        """Whether a prompt's text gives its ids again."""
        text = self.prompt_text(prompt)
        again = encode_prompt(self.tokenizer, text) if text else []
        return self._without_bos(again) == self._without_bos(prompt.token_ids)

    def prompt_text(self, prompt: Prompt) -> str:
        """What is sent in place of ids; without the first token that tokenizers add themselves."""
        return decode(
            self.tokenizer, self._without_bos(prompt.token_ids), skip_special_tokens=False
        )

    def body(
        self, dialect: Dialect, prompt: Prompt, *, n: int, seed: int, max_tokens: int
    ) -> dict[str, Any]:
        """A completions request."""
        settings = self.settings
        body: dict[str, Any] = {
            "model": dialect.model,
            "prompt": list(prompt.token_ids)
            if dialect.prompts_as_ids
            else self.prompt_text(prompt),
            "max_tokens": max_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "n": n,
            "seed": seed,
        }
        if dialect.top is not None:
            body["logprobs"] = dialect.top
        return body | EXTRAS if dialect.extras else body

    def _ask(self, dialect: Dialect, prompt: Prompt, *, n: int = 1) -> list[Choice]:
        body = self.body(dialect, prompt, n=n, seed=0, max_tokens=1)
        return choices_of(self.server.complete(body))

    def _with_logprobs(self, dialect: Dialect, prompts: Sequence[Prompt]) -> Dialect:
        """Whether the server's log-probabilities are those of the distribution drawn from."""
        kind = (self.settings.temperature, self.settings.top_p)
        if dialect.top is None or kind == (1.0, 1.0):
            return dialect
        asking = replace(dialect, top=TOP)

        def likeliest_at(prompt: Prompt, temperature: float, top_p: float) -> dict[str, float]:
            body = self.body(asking, prompt, n=1, seed=0, max_tokens=1)
            body |= {"temperature": temperature, "top_p": top_p}
            choices = choices_of(self.server.complete(body))
            return likeliest(choices[0]) if choices else {}

        verdict = what_is_wrong(prompts[:PROBE_PROMPTS], self.settings, likeliest_at)
        if verdict is None:
            return dialect
        self.notes.append(
            f"the server's log-probabilities {verdict}: they are left out "
            f"(temperature {kind[0]:g}, top-p {kind[1]:g}). vLLM gives the right ones when it is "
            "started with --logprobs-mode processed_logprobs"
        )
        return replace(dialect, true_logprobs=False)


def chosen_model(server: Server, served_model: str | None, policy_name: str) -> Dialect:
    """The served model that was asked for, or the only one.

    Raises:
        UsageError: several models are served and none was chosen.
        ServerError: no server, a wrong key, a web page, a model that is not served.
    """
    cards = server.models()
    if cards is None:
        return Dialect(model=served_model or policy_name)
    known = [str(card["id"]) for card in cards]
    if served_model is None:
        served_model = known[0] if len(known) == 1 else policy_name
        if served_model not in known:
            raise UsageError(
                f"{server.address} serves {len(known)} models: {', '.join(known)}",
                hint="choose one with --served-model",
            )
    if served_model not in known:
        raise wrong_model(server.address, served_model, known)
    length = cards[known.index(served_model)].get("max_model_len")
    return Dialect(model=served_model, max_length=length if isinstance(length, int) else None)


def choices_of(answer: dict[str, Any]) -> list[Choice]:
    """The choices of an answer, in order."""
    found = answer.get("choices")
    if not isinstance(found, list):
        return []
    return [choice for choice in found if isinstance(choice, dict)]
