"""The first pass: foreign completions are checked one by one and put with their group."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from thr_probe.errors import DataError
from thr_probe.importing.labels import Labels
from thr_probe.importing.prompts import (
    check_vocabulary,
    checked_ids,
    decoded,
    given_prompt,
    read_prompt,
    whole_text,
)
from thr_probe.importing.refusals import Refusals, RowRefusedError
from thr_probe.importing.settings import ImportSettings
from thr_probe.importing.spool import Spool, Spooled, SpooledPrompt
from thr_probe.importing.words import Words
from thr_probe.problems.problem import prompt_id
from thr_probe.progress import SILENT, Monitor
from thr_probe.traces.importers.foreign import ForeignCompletion, Refused

ROWS_BETWEEN_LOOKS = 256
"""Rows between two looks whether to stop."""
ROWS_TO_JUDGE_A_TOKENIZER = 50
MOST_LOGPROB = 0.01
"""Nats; numbers above are probabilities, or negated."""
FINISH_REASONS = ("stop", "length", "abort")


@dataclass(slots=True, kw_only=True)
class Group:
    """Completions of one prompt in one step, by their counts."""

    place: int
    """Order of appearance."""
    step: int | None
    """Of training."""
    base_id: str
    """prompt_id by its question and prompt text; other groups may have the same."""
    given: bytes
    """Digest of the question and the prompt text as the files have them."""
    answer: bytes
    """Digest of the gold answer."""
    has_answer: bool
    """Whether there is one."""
    prompt_ids: bytes | None
    """Digest of the prompt's ids, where the files have them."""
    model: str | None
    """The policy of its first completion."""
    next_rollout: int = 0
    """Number of a completion that has none."""
    num_rows: int = 0
    """Completions."""
    num_bytes: int = 0
    """About what its texts and lists take."""


@dataclass(slots=True, kw_only=True)
class Reading:
    """What the first pass found."""

    groups: list[Group] = field(default_factory=list)
    """In the order of appearance."""
    refusals: Refusals = field(default_factory=Refusals)
    """Rows left out because of what they are."""
    counts: Counter[str] = field(default_factory=Counter)
    """Rows by what was noticed."""
    datasets: Counter[str] = field(default_factory=Counter)
    """Rows by problem set."""
    models: Counter[str] = field(default_factory=Counter)
    """Rows by policy."""
    verifiers: Counter[str | None] = field(default_factory=Counter)
    """Rows by what judged them for the source."""
    stopped: bool = False
    """Whether the user stopped it."""


@dataclass(slots=True, kw_only=True)
class Reader:
    """Fills a spool."""

    spool: Spool
    """Where completions go."""
    settings: ImportSettings
    """The user's."""
    words: Words | None = None
    """To check ids against."""
    found: Reading = field(default_factory=Reading)
    """The result."""
    labels: Labels = field(init=False)
    _by_key: dict[tuple[int | None, bytes], Group] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels = Labels(settings=self.settings)

    def read(
        self, rows: Iterable[ForeignCompletion | Refused], monitor: Monitor = SILENT
    ) -> Reading:
        """Take every row, or count why not.

        Raises:
            UsageError: rewards whose meaning the user has to say.
            DataError: a file that cannot be read; a tokenizer that is not the one of the ids.
        """
        found = self.found
        for number, row in enumerate(rows):
            if number % ROWS_BETWEEN_LOOKS == 0 and monitor.should_stop():
                found.stopped = True
                return found
            found.counts["rows_read"] += 1
            if isinstance(row, Refused):
                found.refusals.add(row.where, row.reason)
                continue
            try:
                self._take(row)
            except RowRefusedError as error:
                found.refusals.add(row.where, str(error))
        self.labels.check()
        self._check_tokenizer(at_least=1)
        return found

    def _take(self, row: ForeignCompletion) -> None:
        if not self._is_wanted(row):
            self.found.counts["rows_skipped"] += 1
            return
        key = (row.step, _digest(row.group))
        group = self._by_key.get(key)
        if group is None and len(self._by_key) == self.settings.max_groups:
            self.found.counts["rows_skipped"] += 1
            return
        spooled = self._checked(row)
        prompt = given_prompt(row)
        if group is None:
            group = self._new_group(row, prompt)
            self._by_key[key] = group
        else:
            _check_same_prompt(group, prompt)
        rollout = group.next_rollout if row.rollout is None else int(row.rollout)
        is_other = row.model != group.model
        if not self.spool.add(group.place, rollout, spooled):
            self.found.counts["duplicates"] += 1
            raise RowRefusedError(
                "the same step, group and rollout as an earlier row"
                + (" of another policy: import each policy's rows alone" if is_other else "")
            )
        self.found.counts["other_policy"] += is_other
        self._count(row, spooled, group, rollout)

    def _is_wanted(self, row: ForeignCompletion) -> bool:
        steps = self.settings.steps
        return steps is None or (row.step is not None and steps[0] <= row.step < steps[1])

    def _new_group(self, row: ForeignCompletion, prompt: SpooledPrompt) -> Group:
        if row.step is not None and not 0 <= row.step < 2**31:
            raise RowRefusedError(f"the step is {row.step}")
        given = prompt
        prompt = read_prompt(row, given, self.words, chat_template=self.settings.chat_template)
        if row.prompt_messages is not None and given.token_ids is None:
            which = "prompts_without_template" if prompt is given else "prompts_with_template"
            self.found.counts[which] += 1
        group = Group(
            place=len(self.found.groups),
            step=row.step,
            base_id=prompt_id(prompt.question, prompt.prompt_text),
            answer=_digest("\0".join(prompt.accepted_answers)),
            has_answer=bool(prompt.accepted_answers),
            given=_digest_of_prompt(given),
            prompt_ids=_digest_of_ids(given.token_ids),
            model=row.model,
        )
        self.found.groups.append(group)
        self.spool.add_prompt(group.place, prompt)
        return group

    def _checked(self, row: ForeignCompletion) -> Spooled:
        label = self.labels.read(row)
        text = whole_text(row.text)
        self.found.counts["broken_text"] += text != row.text
        ids = checked_ids(row.token_ids, "token_ids")
        if ids is not None and row.has_only_ids:
            text = decoded(ids, self.words)
        elif ids is not None and self.words is not None:
            self._compare(ids, text, self.words)
        return Spooled(
            text=text,
            token_ids=ids,
            logprobs=self._logprobs(row, ids),
            reward=label.reward,
            correct=label.correct,
            extracted=None if row.extracted is None else whole_text(row.extracted),
            verifier=row.verifier,
            finish_reason=row.finish_reason if row.finish_reason in FINISH_REASONS else None,
            seed=row.seed if row.seed is not None and 0 <= row.seed < 2**63 else None,
        )

    def _logprobs(
        self, row: ForeignCompletion, ids: Sequence[int] | None
    ) -> Sequence[float] | None:
        if row.sampler_logprobs is None:
            return None
        if ids is None or len(row.sampler_logprobs) != len(ids):
            self.found.counts["logprobs_of_other_length"] += 1
            return None
        try:
            values = array("f", row.sampler_logprobs)
        except (TypeError, OverflowError):
            values = array("f", [math.nan])
        # half precision may round a log-probability of 0 up
        if not all(math.isfinite(value) and value < MOST_LOGPROB for value in values):
            self.found.counts["logprobs_impossible"] += 1
            return None
        return values

    def _compare(self, ids: Sequence[int], text: str, words: Words) -> None:
        """Whether the ids are the text's under the tokenizer."""
        counts = self.found.counts
        counts["ids_checked"] += 1
        try:
            check_vocabulary(ids, words)
        except RowRefusedError:
            counts["ids_beyond_vocabulary"] += 1
            self._check_tokenizer(at_least=ROWS_TO_JUDGE_A_TOKENIZER)
            raise
        wanted = "".join(text.split())
        if not any(
            "".join(words.decode(ids, skip_special_tokens=skip).split()) == wanted
            for skip in (True, False)
        ):
            counts["ids_of_other_text"] += 1
            self._check_tokenizer(at_least=ROWS_TO_JUDGE_A_TOKENIZER)

    def _check_tokenizer(self, *, at_least: int) -> None:
        counts = self.found.counts
        wrong = counts["ids_beyond_vocabulary"] + counts["ids_of_other_text"]
        if self.words is None or counts["ids_checked"] < at_least:
            return
        if 2 * wrong > counts["ids_checked"]:
            raise DataError(
                f"{self.words.name} is not the tokenizer of these token ids: of "
                f"{counts['ids_checked']} completions it reads {wrong} differently from their text",
                "give the tokenizer of the policy that sampled them, or leave --tokenizer out: the "
                "ids are kept as they are",
            )

    def _count(self, row: ForeignCompletion, spooled: Spooled, group: Group, rollout: int) -> None:
        found = self.found
        group.num_rows += 1
        group.next_rollout = max(group.next_rollout, rollout + 1)
        group.num_bytes += len(spooled.text) + 4 * len(spooled.token_ids or ())
        group.num_bytes += 4 * len(spooled.logprobs or ())
        found.counts["to_grade"] += spooled.correct is None
        found.counts["without_answer"] += not row.answer
        found.counts["texts_from_ids"] += row.has_only_ids
        found.datasets[row.dataset or ""] += 1
        found.models[row.model or ""] += 1
        found.verifiers[row.verifier] += 1


def _check_same_prompt(group: Group, prompt: SpooledPrompt) -> None:
    if _digest_of_prompt(prompt) != group.given:
        raise RowRefusedError("another prompt than the first row of its group")
    ids = _digest_of_ids(prompt.token_ids)
    if None not in (ids, group.prompt_ids) and ids != group.prompt_ids:
        raise RowRefusedError("other prompt ids than the first row of its group")
    answers = prompt.accepted_answers
    if answers and _digest("\0".join(answers)) != group.answer:
        raise RowRefusedError("another gold answer than the first row of its group")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _digest_of_prompt(prompt: SpooledPrompt) -> bytes:
    return _digest(f"{prompt.question}\0{prompt.prompt_text}")


def _digest_of_ids(ids: Sequence[int] | None) -> bytes | None:
    if ids is None:
        return None
    return hashlib.blake2b(array("i", ids).tobytes(), digest_size=16).digest()
