"""Whatever a field holds in place of its value, its row is given or refused and reading goes on."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest

from thr_probe.errors import DataError
from thr_probe.traces.importers import inspect_ai, lm_eval, prime_rl, verifiers
from thr_probe.traces.importers.foreign import ForeignCompletion, ImportOptions, Refused

FIXTURES = Path(__file__).parent / "fixtures"
JUNK = (None, 0, -1, 3.5, "", "x", [], [1], ["a"], {}, {"a": 1}, True, [None], [{"role": "user"}])
TEXTS = ("question", "answer", "answer_alt", "extracted", "verifier", "finish_reason", "dataset")


def first_line(name):
    (path,) = FIXTURES.glob(name)
    return json.loads(path.read_text().splitlines()[0])


CASES = {
    "lm_eval": (lm_eval, "samples_a_b.jsonl", first_line("lm_eval/samples_lab_arith*.jsonl")),
    "chat": (lm_eval, "samples_a_b.jsonl", first_line("lm_eval/chat/*.jsonl")),
    "results": (verifiers, "results.jsonl", first_line("verifiers/results/results.jsonl")),
    "traces": (verifiers, "traces.jsonl", first_line("verifiers/traces_with_tokens/*.jsonl")),
    "exports": (prime_rl, "rank_0.jsonl", first_line("prime_rl/exports/*/*/rank_0.jsonl")),
}


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 2)):
            yield from places(value[index], (*path, index))


def mutated(row, rng):
    """The row with one value replaced or left out."""
    row = copy.deepcopy(row)
    *above, last = rng.choice([path for path in places(row) if path])
    holder = row
    for key in above:
        holder = holder[key]
    if isinstance(holder, dict) and rng.random() < 0.3:
        del holder[last]
    else:
        holder[last] = copy.deepcopy(rng.choice(JUNK))
    return row


def check(found):
    for one in found:
        assert isinstance(one.where, str)
        if isinstance(one, Refused):
            assert one.reason
            continue
        assert isinstance(one, ForeignCompletion)
        assert all(isinstance(text, str) for text in (one.group, one.text, one.prompt_text))
        assert all(isinstance(getattr(one, name), str | None) for name in (*TEXTS, "model"))
        assert isinstance(one.reward, float | None)
        assert isinstance(one.step, int | None)


@pytest.mark.parametrize("case", CASES)
def test_a_mutated_line_is_given_or_refused(case, tmp_path):
    module, name, row = CASES[case]
    rng = random.Random(case)
    path = tmp_path / "step_3" / name
    path.parent.mkdir()
    (path.parent / "STABLE").touch()
    lines = [row, *(mutated(row, rng) for _ in range(150)), {**row, "doc_id": 9}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = list(module.IMPORTER.read([path], ImportOptions()))
    check(found)
    assert len(found) >= len(lines) - 50  # other filters and episodes of no trace
    assert found[-1].where.startswith(f"{path}, line 152")


def test_a_mutated_log_is_given_or_refused_or_no_log(tmp_path):
    log = json.loads((FIXTURES / "inspect" / "reasoning.json").read_text())
    rng = random.Random(0)
    path = tmp_path / "a.json"
    given = 0
    for number in range(150):
        changed = mutated(log, rng) if number % 3 == 0 else copy.deepcopy(log)
        if number % 3 and isinstance(changed["samples"], list):
            changed["samples"][0] = mutated(log["samples"][0], rng)
        path.write_text(json.dumps(changed))
        try:
            found = list(inspect_ai.IMPORTER.read([path], ImportOptions()))
        except DataError:
            continue
        check(found)
        given += 1
    assert given > 120
