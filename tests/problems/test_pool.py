"""Worker processes: limits, replacements, order, and that none of them stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from thr_probe.errors import UsageError
from thr_probe.problems import MathVerifier, VerifyStatus, load_verifier

PLUGIN = """
import os, sys, time

def binary(completion, answer):
    return completion.strip() == answer

def graded(completion, answer):
    return 0.25 * completion.count(answer)

def moody(completion, answer):
    print("noise on standard output")
    if completion == "sleep":
        time.sleep(60)
    if completion == "spin":
        while True:
            pass
    if completion == "die":
        os._exit(7)
    if completion == "leave":
        sys.exit(3)
    if completion == "raise":
        return {}["missing"]
    if completion == "word":
        return "good"
    if completion == "nan":
        return float("nan")
    return completion == answer

def pid(completion, answer):
    return os.getpid()

not_callable = 5
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of verifiers in the current folder, as a user would have it."""
    (tmp_path / "my_rewards.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    yield "my_rewards"
    assert children() == []


def children() -> list[int]:
    """Process ids of this process's children, dead but unwaited ones included."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                found.append(int(folder.name))
    return found


def test_a_plug_in_from_the_current_folder_judges_in_order(plugin: str) -> None:
    completions = [str(number) for number in range(100)]
    answers = [str(number - number % 3) for number in range(100)]
    with load_verifier(f"{plugin}:binary", num_workers=3) as verifier:
        verdicts = verifier.verify(completions, answers)
        assert verifier.name == "my_rewards:binary"
    assert [verdict.correct for verdict in verdicts] == [n % 3 == 0 for n in range(100)]
    assert {verdict.status for verdict in verdicts} == {VerifyStatus.OK}
    assert {verdict.extracted for verdict in verdicts} == {None}


def test_a_plug_in_that_overruns_or_dies_costs_its_item_only(plugin: str) -> None:
    completions = ["1", "sleep", "2", "die", "1", "leave", "spin", "1", "1"]
    started = time.monotonic()
    with load_verifier(f"{plugin}:moody", num_workers=2, limit_s=1.0) as verifier:
        verdicts = verifier.verify(completions, ["1"] * len(completions))
        again = verifier.verify(["1"], ["1"])
    assert time.monotonic() - started < 50  # it would sleep for 60, or spin for ever
    assert [verdict.status.value for verdict in verdicts] == [
        "ok", "timeout", "ok", "error", "ok", "error", "timeout", "ok", "ok",
    ]  # fmt: skip
    assert [verdict.correct for verdict in verdicts] == [
        True, False, False, False, True, False, False, True, True,
    ]  # fmt: skip
    assert again[0].correct


def test_graded_rewards_need_a_bound(plugin: str) -> None:
    completions, answers = ["a", "aaa", "aaaa"], ["a"] * 3
    with (
        load_verifier(f"{plugin}:graded") as verifier,
        pytest.raises(UsageError, match=r"returned 0\.25, .*neither 0 nor 1") as caught,
    ):
        verifier.verify(completions, answers)
    assert "--correct-above" in str(caught.value.hint)
    with load_verifier(f"{plugin}:graded", correct_above=0.5) as verifier:
        verdicts = verifier.verify(completions, answers)
    assert [verdict.reward for verdict in verdicts] == [0.25, 0.75, 1.0]
    assert [verdict.correct for verdict in verdicts] == [False, True, True]


@pytest.mark.parametrize(
    ("completion", "complaint"),
    [
        ("raise", r"'my_rewards:moody' raised on completion 1: KeyError: 'missing' \(my_rewards"),
        ("word", "'my_rewards:moody' returned 'good', not a finite number"),
        ("nan", "'my_rewards:moody' returned nan, not a finite number"),
    ],
)
def test_a_plug_in_that_fails_is_named(plugin: str, completion: str, complaint: str) -> None:
    with load_verifier(f"{plugin}:moody") as verifier, pytest.raises(UsageError, match=complaint):
        verifier.verify(["1", completion], ["1", "1"])


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("no_such_module:f", "'no_such_module:f' does not load: ModuleNotFoundError"),
        ("my_rewards:absent", "'my_rewards:absent' does not load: AttributeError"),
        ("my_rewards:not_callable", "not_callable is not a function"),
        ("maths", "unknown verifier 'maths'"),
        ("my_rewards:", "unknown verifier 'my_rewards:'"),
    ],
)
def test_a_verifier_that_does_not_exist_is_refused_at_once(
    plugin: str, spec: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        load_verifier(spec)


def test_the_built_in_verifier_takes_no_bound() -> None:
    with pytest.raises(UsageError, match="does not apply"):
        load_verifier("math", correct_above=0.5)
    with pytest.raises(UsageError, match="num_workers"):
        load_verifier("math", num_workers=0)
    with load_verifier("math") as verifier:
        assert verifier.name == "math"
        assert verifier.verify([], []) == []
        assert verifier.verify(["\\boxed{4}"], ["4"])[0].correct
    assert children() == []  # plain numbers need no process


def test_a_hostile_answer_times_out_and_the_next_ones_are_judged(tmp_path: Path) -> None:
    hostile = [
        r"\boxed{9^{9^{9^{9}}}}",
        "\\boxed{" + "{" * 500_000,
        "\\boxed{1\x00}",
        "\\boxed{" + "7" * 1_000_000 + "}",
        "\\boxed{" + "\\frac{1}{1+" * 300 + "x" + "}" * 300 + "}",
        "\\boxed{\ud800}",
    ]
    with MathVerifier(num_workers=1, limit_s=1.5) as verifier:
        verdicts = verifier.verify([*hostile, "\\boxed{x+x}"], ["5"] * len(hostile) + ["2x"])
        assert [verdict.correct for verdict in verdicts] == [False] * len(hostile) + [True]
        assert verdicts[0].status is VerifyStatus.TIMEOUT
        assert verdicts[1].status is VerifyStatus.PARSE_FAIL
        assert verdicts[3].status is VerifyStatus.PARSE_FAIL
        same = verifier.verify([hostile[3]], ["7" * 1_000_000])
        assert same[0].correct
    assert children() == []


def test_an_answer_that_wants_all_memory_is_an_error_not_the_end(plugin: str) -> None:
    Path("my_rewards.py").write_text("def hungry(a, b):\n    return len(bytearray(1 << 34)) > 0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thr_probe.problems.verifier.ALGEBRA", "my_rewards:hungry")
        patch.setattr("thr_probe.problems.verifier._WARM_UP", ())
        patch.syspath_prepend(str(Path.cwd()))
        with MathVerifier(num_workers=1) as verifier:
            verdict = verifier.verify(["\\boxed{x}"], ["x+1"])[0]
    assert (verdict.correct, verdict.status) == (False, VerifyStatus.ERROR)


def test_workers_end_when_the_verifier_is_closed_dropped_or_fails(plugin: str) -> None:
    verifier = load_verifier(f"{plugin}:binary", num_workers=2)
    assert len(children()) == 1
    verifier.verify([str(n) for n in range(40)], ["1"] * 40)
    assert 1 <= len(children()) <= 2
    verifier.close()
    verifier.close()
    assert children() == []
    assert verifier.verify(["1"], ["1"])[0].correct  # it starts anew when used again
    del verifier
    assert children() == []


def test_ctrl_c_leaves_no_process_behind(plugin: str, tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import signal
        from thr_probe.problems import load_verifier
        # a shell's background jobs ignore Ctrl-C, and so would this
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if True:  # no __main__ guard: workers do not import this script
            verifier = load_verifier("{plugin}:moody", num_workers=2, limit_s=50)
            pids = verifier._pool._workers[0].process.pid
            print(pids, flush=True)
            try:
                verifier.verify(["spin", "sleep"], ["1", "1"])
            except KeyboardInterrupt:
                print("workers:", len(verifier._pool._workers), flush=True)
        """
    )
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(
        [sys.executable, "script.py"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert out.strip() == "workers: 0"
    assert not Path(f"/proc/{worker}").exists()
