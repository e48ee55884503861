"""What the viewer's page is made of, read back without a browser."""

from __future__ import annotations

import base64
import gzip
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

import thr_probe.report
from thr_probe.cli import app
from thr_probe.cli.view import view_command
from thr_probe.errors import DataError, UsageError
from thr_probe.report.tokens.pieces import display_pieces
from thr_probe.report.tokens.viewer import MAX_TOKENS, csp_hash, view_page, viewer_fragment
from thr_probe.report.tokens.viewer_data import viewer_data
from thr_probe.report.tokens.viewer_payload import PLANES, TAU_FACTORS, decimals, payload, short_thr
from thr_probe.traces import read_run, write_tokens

STATIC = Path(thr_probe.report.__file__).parent / "static"
BYTES = {
    1: b" so",
    2: b"\xf0\x9f",
    3: b"\x98\x80",
    4: b"a\xe2",
    5: b"\x82\xac",
    6: b"",
    7: b"\xff",
    8: b"</script>",
}


def with_bytes(run: Path) -> Path:
    """The run with tokens that are parts of characters."""
    rows = [
        {"token_id": i, "bytes": data, "text": data.decode(errors="replace")}
        for i, data in BYTES.items()
    ]
    (run / "tokens.parquet").unlink(missing_ok=True)
    write_tokens(run, rows)
    return run


def random_groups(seed: int, count: int = 3):
    rng = np.random.default_rng(seed)
    groups = []
    for number in range(count):
        completions = []
        for rollout in range(4):
            length = int(rng.integers(1, 40))
            thr = rng.standard_t(2, length) * 10.0 ** rng.integers(-8, 6, length)
            completions.append(
                {
                    "correct": rollout < number,
                    "token_ids": rng.integers(1, 9, length).tolist(),
                    "thr": np.float32(thr).tolist() if number else None,
                    "thr_self": np.float32(thr / 3).tolist() if number else None,
                    "thr_within": np.float32(-thr / 7).tolist() if number else None,
                    "thr_error": np.float32(np.abs(thr) / 1e4).tolist() if number else None,
                    "entropy": np.float32(rng.exponential(0.3, length) ** 3).tolist(),
                    "logprob": np.float32(-(rng.exponential(1.0, length) ** 3)).tolist(),
                }
            )
        groups.append({"prompt_id": f"p{number}", "completions": completions})
    return groups


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    path = make_run(tmp_path_factory.mktemp("run") / "run", random_groups(0))
    return read_run(with_bytes(path))


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def read_back(packed: dict[str, str], number: int):
    """A literal reader of the format: one token, one byte at a time."""
    index = json.loads(unpacked(packed["tv-index"]))
    about = index["groups"][number]
    data = unpacked(packed[f"tv-group-{number}"])
    total = sum(completion["length"] for completion in about["completions"])
    columns, at = {}, 0
    for name, width in PLANES.items():
        if name != "rank" and name not in about["columns"]:
            continue
        values = []
        for i in range(total):
            own = bytes(data[at + k * total + i] for k in range(width))
            if name == "rank":
                values.append(index["ids"][int.from_bytes(own, "little")])
            elif name == "thr":
                values.append(np.frombuffer(own, "<f4")[0])
            else:
                places = int.from_bytes(own[2:], "little", signed=True)
                values.append((int.from_bytes(own[:2], "little", signed=True), places))
        columns[name] = values
        at += width * total
    assert at == len(data)
    return about, columns


def test_the_payload_holds_the_numbers_of_the_trace_to_the_digits_shown(run):
    data = viewer_data(run, max_tokens=10**6)
    packed = payload(run, data)
    names = ["token_ids", "thr", "thr_self", "thr_within", "thr_error", "entropy", "logprob"]
    tables = run.iter_completions(["prompt_id", *names])
    rows = [row for table in tables for row in table.to_pylist()]
    for number in range(3):
        about, columns = read_back(packed, number)
        own = [row for row in rows if row["prompt_id"] == f"p{number}"]
        flat = {name: [x for row in own for x in row[name] or ()] for name in names}
        assert columns["rank"] == flat["token_ids"]
        if number == 0:
            assert about["columns"] == ["entropy", "logprob"]
            assert about["tau"] is about["balance"] is about["retained"] is None
        else:
            assert [f"{x:.3e}" for x in columns["thr"]] == [f"{x:.3e}" for x in flat["thr"]]
        for name, significant, most in [
            ("thr_self", 4, None),
            ("thr_within", 4, None),
            ("thr_error", 2, None),
            ("entropy", 4, 5),
            ("logprob", 4, 5),
        ]:
            for (digits, places), value in zip(columns.get(name, []), flat[name], strict=True):
                assert abs(digits) < 10**significant
                held = f"{digits * 10.0**-places:.{significant - 1}e}"
                if most is None or abs(value) >= 10.0 ** (significant - 1 - most):
                    assert held == f"{value:.{significant - 1}e}"
                else:
                    assert (
                        f"{digits * 10.0**-places:.{most}f}"
                        == f"{round(value, most) + 0.0:.{most}f}"
                    )


def test_decimal_numbers_keep_their_digits():
    digits, places = decimals(
        np.float32([0.0, 9.9996, -0.00012344, 12345.0, 1.5e-40, -9999.9]), significant=4
    )
    assert digits.tolist() == [0, 1000, -1234, 1234, 1500, -1000]
    assert places.tolist() == [3, 2, 7, -1, 43, -1]
    digits, places = decimals(np.float32([0.12345, 0.000014, 2.5e-7]), significant=4, most_places=5)
    assert digits.tolist() == [1235, 1, 0]
    assert places.tolist() == [4, 5, 5]


def test_shortened_thr_tells_the_same_everywhere_it_is_shown():
    rng = np.random.default_rng(1)
    tau = 0.0123
    near = np.float32(tau * TAU_FACTORS)
    thr = np.concatenate(
        [
            np.float32(rng.standard_t(2, 4000)),
            near,
            np.nextafter(near, np.float32(1)),
            -np.nextafter(near, np.float32(0)),
            np.float32([0.0, -0.0]),
        ]
    )
    short = short_thr(thr, tau)
    assert short.dtype == np.float32
    assert (short.view("<u4") & 0xFF == 0).mean() > 0.8
    for exact, held in zip(thr.tolist(), short.tolist(), strict=True):
        assert f"{held:.3e}" == f"{exact:.3e}"
        assert f"{held / tau:.3e}" == f"{exact / tau:.3e}"
    for factor in TAU_FACTORS:
        assert_array_equal(np.abs(short) > factor * tau, np.abs(thr) > factor * tau)
    assert_array_equal(np.sign(short), np.sign(thr))


def test_pieces_of_a_group_are_those_of_its_completions(run):
    data = viewer_data(run, max_tokens=10**6)
    index = json.loads(unpacked(payload(run, data)["tv-index"]))
    several = 0
    for about, group in zip(index["groups"], data.groups, strict=True):
        expected, first = [], 0
        for completion in group.completions:
            ids = group.token_ids_N[first : first + completion["length"]].tolist()
            pieces = display_pieces([BYTES[i] for i in ids])
            expected += [
                [first + piece.first, piece.num_tokens, piece.text]
                for piece in pieces
                if piece.num_tokens > 1
            ]
            for piece in pieces:
                if piece.num_tokens == 1:
                    assert index["texts"][index["ids"].index(ids[piece.first])] == piece.text
            first += completion["length"]
        assert about["joined"] == expected
        several += len(expected)
    assert several > 10


def test_balance_and_retention_are_those_of_the_groups_tokens(run):
    for group in viewer_data(run, max_tokens=10**6).groups[1:]:
        thr = group.columns["thr"].astype(float).tolist()
        assert group.balance == pytest.approx(sum(thr) / sum(map(abs, thr)), rel=1e-12)
        tau = float(np.float32(group.tau))
        assert group.retained == sum(abs(x) > tau for x in thr) / len(thr)


def test_questions_beyond_the_limit_are_left_out_and_counted(run):
    lengths = [len(group.token_ids_N) for group in viewer_data(run, max_tokens=10**6).groups]
    data = viewer_data(run, max_tokens=lengths[0] + lengths[1])
    assert [group.prompt_id for group in data.groups] == ["p0", "p1"]
    assert data.num_left_out == 1
    # the first is shown however large it is
    assert len(viewer_data(run, max_tokens=1).groups) == 1
    fragment = viewer_fragment(run, max_tokens=1)
    assert fragment.notice.startswith("Shown: the first 1 of 3 questions. 2 left out")
    assert "thr-probe view RUN PROMPT" in fragment.html
    assert viewer_fragment(run).notice is None


def test_a_question_is_chosen_by_its_id_or_how_it_begins(run):
    chosen = viewer_data(run, prompts=["p2"], max_tokens=10**6)
    assert [group.prompt_id for group in chosen.groups] == ["p2"]
    assert chosen.num_left_out == 0
    with pytest.raises(UsageError, match="3 questions begin with 'p'"):
        viewer_data(run, prompts=["p"], max_tokens=10)
    with pytest.raises(UsageError, match="no question has the prompt_id 'p9'"):
        viewer_data(run, prompts=["p9"], max_tokens=10)
    with pytest.raises(UsageError, match="max_tokens is 0"):
        viewer_data(run, max_tokens=0)


def test_runs_without_scores_or_token_ids_get_a_sentence(make_run, tmp_path):
    groups = [{"completions": [{"correct": True}, {"correct": False}]}]
    unscored = read_run(make_run(tmp_path / "unscored", groups, scored=False, tokens={1: "a"}))
    with pytest.raises(DataError, match="has no scores"):
        viewer_fragment(unscored)
    without = read_run(make_run(tmp_path / "without", groups))
    with pytest.raises(DataError, match="has no texts of its tokens"):
        viewer_fragment(without)
    absent = [{"completions": [{"correct": True}, {"token_ids": None, "thr": [1.0]}]}]
    null = read_run(make_run(tmp_path / "null", absent, tokens={1: "a"}))
    with pytest.raises(DataError, match="1 completions of p0 have no token ids"):
        viewer_fragment(null)
    unlisted = read_run(make_run(tmp_path / "unlisted", groups, tokens={1: "a"}))
    with pytest.raises(DataError, match="token id 2 is missing"):
        viewer_fragment(unlisted)


def test_a_threshold_of_minus_infinity_passes_through_json(make_run, tmp_path):
    groups = [{"tau": float("-inf"), "completions": [{"correct": True}, {"correct": False}]}]
    run = read_run(make_run(tmp_path / "run", groups, tokens=dict.fromkeys(range(1, 5), "a")))
    packed = payload(run, viewer_data(run, max_tokens=100))
    about = json.loads(unpacked(packed["tv-index"]))["groups"][0]
    assert about["tau"] == "-Infinity"
    assert about["retained"] == 1.0


def test_the_page_allows_its_own_script_and_style_and_nothing_else(run, tmp_path):
    page = tmp_path / "new" / "view.html"
    fragment = view_page(run, page)
    text = page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert f"script-src {csp_hash(script)};" in policy
    assert f"style-src {csp_hash(style)};" in policy
    assert (script, style) == (fragment.js, fragment.css)
    assert not re.search(r"\son\w+=|\sstyle=|https?://(?!www\.w3\.org/2000/svg)", text)
    assert text.count("<script>") == text.count("<style>") == 1
    view_page(run, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


def test_script_and_style_are_small_and_never_write_html():
    script, style = (STATIC / "viewer.js").read_text(), (STATIC / "viewer.css").read_text()
    assert len(script) + len(style) < 45_000
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_64_completions_of_800_tokens_take_less_than_half_a_megabyte(make_run, tmp_path):
    rng = np.random.default_rng(0)
    completions = [
        {
            "correct": rollout % 3 == 0,
            "token_ids": rng.integers(1, 200, 800).tolist(),
            "thr": np.float32(rng.standard_t(3, 800)).tolist(),
            "entropy": np.float32(np.exp(rng.normal(-3.5, 3, 800)).clip(0, 8)).tolist(),
            "logprob": np.float32(-np.exp(rng.normal(-4, 3, 800)).clip(0, 20)).tolist(),
        }
        for rollout in range(64)
    ]
    groups = [{"tau": 0.8, "completions": completions}]
    tokens = {i: f" {i}" for i in range(1, 200)}
    fragment = viewer_fragment(read_run(make_run(tmp_path / "run", groups, tokens=tokens)))
    assert len(fragment.payload_html) < 500_000


def test_the_commands_default_is_the_librarys():
    assert inspect.signature(view_command).parameters["max_tokens"].default == MAX_TOKENS


def test_the_command_writes_the_page_and_tells_where(run, tmp_path):
    runner = CliRunner()
    page = tmp_path / "page.html"
    result = runner.invoke(app, ["view", str(run.path), "p1", "-o", str(page)])
    assert result.exit_code == 0
    assert result.stdout == f"{page}\n"
    assert page.read_text().startswith("<!doctype html>")
    result = runner.invoke(app, ["view", str(run.path), "--max-tokens", "1"])
    assert result.stdout == f"{run.path / 'view.html'}\n"
    assert "Shown: the first 1 of 3 questions" in result.stderr
    assert runner.invoke(app, ["view", str(run.path), "nobody"]).exit_code == 2
