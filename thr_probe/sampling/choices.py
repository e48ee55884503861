"""One choice of a server's answer as a completion: its ids, their log-probabilities, its end."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from thr_probe.sampling.protocol import Completion, FinishReason, IdsSource

TOKEN_ID = re.compile(r"token_id:(\d+)")
"""How vLLM spells a token where ids are asked for in place of text."""

Choice = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One token as a server tells of it."""

    token_id: int | None
    """Where it gives ids."""
    text: str
    """As it spells it."""
    logprob: float | None
    """None where it gives none, or none that is finite."""


def pieces_of(choice: Choice) -> list[Piece]:
    """The tokens of a choice, from either form that servers use; none without logprobs.

    OpenAI's completions have parallel lists; llama.cpp has a record per token, with its id.
    """
    found = choice.get("logprobs") or {}
    if isinstance(found.get("content"), list):
        return [
            _piece(item.get("token"), item.get("logprob"), item.get("id"))
            for item in found["content"]
        ]
    tokens, logprobs = found.get("tokens") or [], found.get("token_logprobs") or []
    if len(tokens) != len(logprobs):
        return []
    return [_piece(token, logprob) for token, logprob in zip(tokens, logprobs, strict=True)]


def _piece(token: object, logprob: object, token_id: object = None) -> Piece:
    text = token if isinstance(token, str) else ""
    spelled = TOKEN_ID.fullmatch(text)
    if spelled:
        token_id = int(spelled.group(1))
    finite = isinstance(logprob, int | float) and math.isfinite(logprob)
    return Piece(
        token_id=token_id if isinstance(token_id, int) else None,
        text=text,
        logprob=float(logprob) if finite and isinstance(logprob, int | float) else None,
    )


def likeliest(choice: Choice) -> dict[str, float]:
    """The likeliest first tokens of a choice with their log-probabilities, as the server says."""
    found = choice.get("logprobs") or {}
    if isinstance(found.get("content"), list):
        first = found["content"][0] if found["content"] else {}
        return {
            str(item["token"]): float(item["logprob"]) for item in first.get("top_logprobs", [])
        }
    listed = found.get("top_logprobs") or [{}]
    return {str(token): float(logprob) for token, logprob in (listed[0] or {}).items()}


def ids_of(choice: Choice) -> list[int] | None:
    """The ids that were sampled, where the server tells them."""
    ids = choice.get("token_ids")
    if isinstance(ids, list) and all(isinstance(token_id, int) for token_id in ids):
        return list(ids)
    spelled = [piece.token_id for piece in pieces_of(choice)]
    known = [token_id for token_id in spelled if token_id is not None]
    return known if known and len(known) == len(spelled) else None


@dataclass(slots=True, kw_only=True)
class ChoiceReader:
    """Turns choices into completions of the policy's tokens."""

    tokenizer: PreTrainedTokenizerBase
    """The policy's."""
    eos_ids: Sequence[int]
    """Ids that end a completion of the policy."""
    true_logprobs: bool = True
    """Whether the server's log-probabilities are those of the distribution drawn from."""
    notes: dict[str, None] = field(default_factory=dict)
    """What a user should know, once each, in order."""

    def read(self, choice: Choice, *, max_tokens: int) -> Completion | None:
        """The completion; None for one that was given up before its first token."""
        ids, pieces = ids_of(choice), pieces_of(choice)
        text = choice.get("text") or ""
        source = IdsSource.RETOKENIZED if ids is None else IdsSource.SAMPLED
        if ids is None:
            ids = list(self.tokenizer.encode(text, add_special_tokens=False))
        reason = self._reason(choice, ids, max_tokens)
        if reason is FinishReason.STOP:
            ids = self._with_eos(ids, choice)
        if not ids:
            return None
        sampled = source is IdsSource.SAMPLED
        agree = self._same_ids(ids, pieces) if sampled else self._same_text(ids, pieces)
        values = [piece.logprob for piece in pieces]
        logprobs = [value for value in values if value is not None]
        if pieces and not (agree and len(logprobs) == len(ids)):
            self._note("the server's log-probabilities do not fit its completions token by token")
        usable = self.true_logprobs and agree and len(logprobs) == len(ids)
        return Completion(
            token_ids=tuple(ids),
            logprobs=tuple(logprobs) if usable else None,
            finish_reason=reason,
            ids_source=source,
            text=None if sampled else text,
        )

    def _reason(self, choice: Choice, ids: Sequence[int], max_tokens: int) -> FinishReason:
        said = choice.get("finish_reason")
        ended = bool(ids) and ids[-1] in self.eos_ids
        if said is None:
            said = "stop" if ended else "length" if len(ids) >= max_tokens else "abort"
        if said not in {"stop", "length"}:
            return FinishReason.ABORT
        if said == "length" and len(ids) < max_tokens and ids_of(choice) is not None:
            self._note(
                f"the server cut a completion off at {len(ids)} of {max_tokens} tokens: it has a "
                "limit of its own"
            )
        return FinishReason(said)

    def _with_eos(self, ids: list[int], choice: Choice) -> list[int]:
        """The ids with the end-of-sequence token that a server may have taken off.

        It is known where the server names it or where the policy has only one.
        """
        if ids and ids[-1] in self.eos_ids:
            return ids
        named = choice.get("stop_reason", choice.get("matched_stop"))
        if isinstance(named, int) and named in self.eos_ids:
            return [*ids, named]
        if len(self.eos_ids) == 1:
            return [*ids, self.eos_ids[0]]
        self._note(
            "the server leaves out the token that ended a completion, and the policy has "
            f"{len(self.eos_ids)} that could have: these completions end without one"
        )
        return ids

    def _same_ids(self, ids: Sequence[int], pieces: Sequence[Piece]) -> bool:
        return len(pieces) == len(ids) and all(
            piece.token_id in {None, token_id} for piece, token_id in zip(pieces, ids, strict=True)
        )

    def _same_text(self, ids: Sequence[int], pieces: Sequence[Piece]) -> bool:
        """Whether the text, tokenized again, falls into the server's pieces.

        Leading spaces aside, which single tokens lose in some tokenizers.
        """
        if len(pieces) != len(ids):
            return False
        own = [self.tokenizer.decode([token_id], skip_special_tokens=False) for token_id in ids]
        *body, last = zip(pieces, own, strict=True)
        same = all(piece.text.lstrip() == str(text).lstrip() for piece, text in body)
        silent_end = ids[-1] in self.eos_ids and last[0].text == ""
        return same and (silent_end or last[0].text.lstrip() == str(last[1]).lstrip())

    def _note(self, text: str) -> None:
        self.notes.setdefault(text)
