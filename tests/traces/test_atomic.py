from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from thr_probe.errors import DataError
from thr_probe.traces import completed_parts, write_part
from thr_probe.traces.atomic import (
    make_folder,
    put_in_place,
    remove_folder,
    remove_temporaries,
    temporary_folder,
    write_atomically,
    write_result,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_at_the_sync_leaves_nothing_behind(tmp_path, rollout_row, monkeypatch):
    write_part(tmp_path, "rollouts", 0, [rollout_row()])
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DataError) as caught:
        write_part(tmp_path, "rollouts", 1, [rollout_row(rollout_id=1)])
    path = tmp_path / "rollouts" / "part-00001.parquet"
    assert caught.value.message == f"could not write {path}: No space left on device"
    assert "free some space" in (caught.value.hint or "")
    assert caught.value.exit_code == 3
    assert names(tmp_path / "rollouts") == ["part-00000.parquet"]


def test_a_full_disk_in_the_middle_of_a_file_keeps_the_file_that_was_there(tmp_path):
    path = tmp_path / "manifest.json"
    write_text(path, "old")

    def write(file):
        file.write(b"new, half of it")
        full_disk()

    with pytest.raises(DataError, match=r"could not write .*manifest\.json: No space left"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["manifest.json"]


def test_an_interrupt_in_the_middle_of_a_file_leaves_nothing_behind(tmp_path):
    def write(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "x", write)
    assert names(tmp_path) == []


LIMITED = """
import resource, sys
from pathlib import Path
from thr_probe.errors import DataError
from thr_probe.traces import write_tokens
path = Path(sys.argv[1])
rows = [{"token_id": i, "bytes": i.to_bytes(4, "big"), "text": str(i)} for i in range(20000)]
write_tokens(path, rows[:3])
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    write_tokens(path, rows)
except DataError as error:
    print(error.message.removeprefix(f"could not write {path}/"))
    print(error.hint)
"""


def test_a_file_that_the_system_refuses_to_let_grow_is_an_error_and_not_half_a_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    first, hint = done.stdout.splitlines()
    assert first == "tokens.parquet: File too large"
    assert "--resume" in hint
    assert names(tmp_path) == ["tokens.parquet"]
    assert pq.read_table(tmp_path / "tokens.parquet").num_rows == 3


def test_a_file_where_a_folder_is_needed(tmp_path, rollout_row):
    (tmp_path / "rollouts").write_text("a file")
    with pytest.raises(DataError, match=r"could not write .*rollouts: File exists") as caught:
        write_part(tmp_path, "rollouts", 0, [rollout_row()])
    assert "a file stands where a folder is needed" in (caught.value.hint or "")


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(DataError, match=r"could not write .*nowhere/x: No such file"):
        write_text(tmp_path / "nowhere" / "x", "text")


def test_order_of_making_a_file_durable(tmp_path, monkeypatch):
    """The contents reach the disk before the name does, and the name before success is told."""
    events = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor):
        events.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_sync(descriptor)

    def replace(source, target):
        events.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    make_folder(tmp_path / "a" / "b")
    write_text(tmp_path / "a" / "b" / "x", "text")
    pid = os.getpid()
    assert events == [
        "sync a",
        f"sync {tmp_path.name}",
        f"sync .x.{pid}.tmp",
        "rename",
        "sync b",
    ]


def test_only_temporary_files_are_removed(tmp_path):
    for name in (".a.parquet.7.tmp", "part-00000.parquet", ".hidden", "x.tmp"):
        (tmp_path / name).write_text("x")
    assert [path.name for path in remove_temporaries(tmp_path)] == [".a.parquet.7.tmp"]
    assert names(tmp_path) == [".hidden", "part-00000.parquet", "x.tmp"]
    assert remove_temporaries(tmp_path / "nowhere") == []


def filled(path, text):
    """The temporary folder of `path` with a file in it and one further down."""
    temporary = temporary_folder(path)
    make_folder(temporary / "below")
    for name in ("x", "below/y"):
        (temporary / name).write_text(text)
    return temporary


def texts(path):
    return {entry.name: entry.read_text() for entry in path.rglob("*") if entry.is_file()}


def test_a_folder_gets_its_name_when_all_of_it_is_on_disk(tmp_path, monkeypatch):
    path, events = tmp_path / "folder", []
    temporary = filled(path, "new")
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor):
        events.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_sync(descriptor)

    def replace(source, target):
        events.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    put_in_place(temporary, path)
    assert sorted(events[:4]) == ["sync .folder.tmp", "sync below", "sync x", "sync y"]
    assert events[4:] == ["rename", f"sync {tmp_path.name}"]
    assert texts(path) == {"x": "new", "y": "new"}
    assert names(tmp_path) == ["folder"]


def test_a_folder_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "folder"
    for text in ("old", "new"):
        put_in_place(filled(path, text), path)
    assert texts(path) == {"x": "new", "y": "new"}
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_take_its_name_leaves_the_one_before(tmp_path, monkeypatch, failing):
    path, calls = tmp_path / "folder", []
    put_in_place(filled(path, "old"), path)
    temporary, real_replace = filled(path, "new"), os.replace

    def replace(source, target):
        calls.append(target)
        if len(calls) == failing:
            full_disk()
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(DataError, match=r"could not write .*folder: No space left"):
        put_in_place(temporary, path)
    assert texts(path) == {"x": "old", "y": "old"}
    assert names(tmp_path) == [".folder.tmp", "folder"]
    assert [entry.name for entry in remove_temporaries(tmp_path)] == [".folder.tmp"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_is_gone_from_its_name_before_it_is_gone(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    put_in_place(filled(path, "old"), path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        remove_folder(path)
    assert names(tmp_path) == [f".folder.{os.getpid()}.tmp"]
    put_in_place(filled(path, "new"), path)
    remove_folder(path)
    assert names(tmp_path) == []
    remove_folder(path)
    remove_folder(tmp_path / "nowhere" / "folder")


def test_a_folder_that_may_not_be_removed_is_told(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    put_in_place(filled(path, "old"), path)
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(DataError, match=r"could not write .*folder: No space left"):
        remove_folder(path)
    assert texts(path) == {"x": "old", "y": "old"}


KILLED = """
import os, sys, time
from pathlib import Path
from thr_probe.traces import completed_parts, write_part
path = Path(sys.argv[1])
real_sync = os.fsync
def slow_sync(descriptor):
    if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".tmp"):
        time.sleep(0.05)
    real_sync(descriptor)
os.fsync = slow_sync
def row(part, k):
    return {"step": None, "prompt_id": f"p{part}", "rollout_id": k, "text": "x" * 200,
            "token_ids": [part, k], "finish_reason": "stop", "reward": 0.0, "correct": False,
            "extracted": None, "verifier": "v", "verify_status": "ok", "ids_source": "sampled",
            "seed": 1}
done = set(completed_parts(path, "rollouts"))
print("ready", flush=True)
for part in range(int(sys.argv[2])):
    if part not in done:
        write_part(path, "rollouts", part, [row(part, k) for k in range(64)])
"""


def test_a_writer_killed_at_any_moment_leaves_only_whole_parts_and_can_go_on(tmp_path):
    def start(folder, parts):
        command = [sys.executable, "-c", KILLED, str(folder), str(parts)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    folder = tmp_path / "killed" / "rollouts"
    leftovers = 0
    for _ in range(4):
        process = start(tmp_path / "killed", 12)
        process.stdout.readline()
        deadline = time.monotonic() + 20
        while not list(folder.glob(".*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
        process.stdout.close()
        leftovers += len(list(folder.glob(".*.tmp")))
        for path in folder.glob("part-*.parquet"):
            assert pq.read_table(path).num_rows == 64
    assert leftovers, "no kill fell into a write: the test did not test anything"
    for name in ("killed", "whole"):
        process = start(tmp_path / name, 12)
        assert process.wait(60) == 0
        process.stdout.close()
    assert completed_parts(tmp_path / "killed", "rollouts") == list(range(12))
    killed, whole = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "rollouts").iterdir()}
        for name in ("killed", "whole")
    )
    assert killed == whole


FULL = """
import os, subprocess, sys
from pathlib import Path
from thr_probe.errors import DataError
from thr_probe.traces import write_tokens
disk = Path(sys.argv[1])
mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
if subprocess.run(mount, capture_output=True).returncode:
    sys.exit(77)
rows = [{"token_id": i, "bytes": os.urandom(8), "text": str(i)} for i in range(20000)]
write_tokens(disk, rows[:3])
before = (disk / "tokens.parquet").read_bytes()
try:
    write_tokens(disk, rows)
except DataError as error:
    print(error.message.removeprefix(f"could not write {disk}/"))
print(os.listdir(disk), (disk / "tokens.parquet").read_bytes() == before)
"""


def test_a_disk_that_is_really_full(tmp_path):
    # a mount that only this process sees, and that ends with it
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*private, "true"], check=False).returncode:
        pytest.skip("no private mounts on this machine")
    done = subprocess.run(
        [*private, sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 77:
        pytest.skip("no file system can be mounted on this machine")
    assert done.stdout.splitlines() == [
        "tokens.parquet: No space left on device",
        "['tokens.parquet'] True",
    ]


def test_a_result_that_cannot_be_written_names_the_file_and_speaks_of_no_resume(tmp_path: Path):
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file" / "view.html", tmp_path):
        with pytest.raises(DataError, match=f"cannot write {path}: ") as refused:
            write_result(path, b"content")
        assert "-o" in str(refused.value.hint)
        assert "resume" not in str(refused.value.hint)
    write_result(tmp_path / "new" / "view.html", b"content")
    assert (tmp_path / "new" / "view.html").read_bytes() == b"content"
    assert (tmp_path / "file").read_text() == "kept"
