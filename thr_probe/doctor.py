"""What is installed and what works here. Everything is tried in child processes.

A package that is broken, or brings the interpreter down, is a row of the report and not the end of
it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path
from typing import Any

from thr_probe.engine_options import installed_version

PACKAGE = "thr_probe"
DEVELOPMENT = "dev"
"""The extra of those who change the package: not looked at."""
CHILD_LIMIT_S = 300.0
LEAST_FREE_BYTES = 2 << 30
"""Of the current folder: a run of a large model takes some GB."""

_MODULES = {"pillow": "PIL", "scikit-learn": "sklearn"}
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*([^;]*?)\s*(?:;\s*extra\s*==\s*[\"'](\w+)[\"'])?")
_BOUND = re.compile(r"(>=|<=|==|!=|>|<|~=)\s*([\w.]+)")
_MARK = "thr-probe-doctor:"
# begins a line per module, so that one that takes the process down is known by name
_IMPORT_ALL = f"""
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    print("{_MARK}" + json.dumps([name, None]), flush=True)
    try:
        importlib.import_module(name)
        result = ""
    except BaseException as error:
        result = f"{{type(error).__name__}}: {{error}}"
    print("{_MARK}" + json.dumps([name, result]), flush=True)
"""
_CALL = f"""
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
module, _, function = sys.argv[1].partition(":")
print("{_MARK}" + json.dumps(getattr(importlib.import_module(module), function)()), flush=True)
"""


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    """It works."""
    ABSENT = "absent"
    """Not there, and only needed for some things."""
    LOOK = "look"
    """It works, and something is worth a look."""
    BROKEN = "broken"
    """The base needs it, and it does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the report."""

    check: str
    """What was looked at."""
    status: Status
    """How it ended."""
    found: str
    """What was found, in a line."""
    advice: str = ""
    """What to do, in a line; empty where nothing is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A package that the metadata asks for."""

    name: str
    """Of the distribution."""
    bounds: str
    """Such as `>=2.1`."""
    extra: str | None
    """The extra that it belongs to; None for the base."""

    @property
    def module(self) -> str:
        """What is imported."""
        return _MODULES.get(self.name, self.name.replace("-", "_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Something that only running it tells; a function without arguments, in a child process."""

    check: str
    """Its name in the report."""
    function: str
    """`module:function`; returns a line of text, or raises."""
    advice: str
    """Where it fails."""


def examine(trials: Sequence[Trial] = (), *, quick: bool = False) -> list[Check]:
    """Every check.

    Args:
        trials: further things to run, such as the lab's policy.
        quick: versions and settings only; nothing is imported or run.
    """
    try:
        asked = requirements()
    except PackageNotFoundError:
        advice = "install it into this environment: pip install ."
        return [Check(check=PACKAGE, status=Status.BROKEN, found="not installed", advice=advice)]
    loaded = {} if quick else import_errors([each.module for each in asked if _installed(each)])
    return [
        _python(),
        *(_package(each, loaded) for each in asked if each.extra is None),
        *(_package(each, loaded) for each in asked if each.extra not in {None, DEVELOPMENT}),
        *([] if quick else [_devices()]),
        _threads(),
        _folder(Path.cwd()),
        *_hub(os.environ),
        *([] if quick else [_tried(trial) for trial in trials]),
    ]


def requirements(lines: Sequence[str] | None = None) -> list[Requirement]:
    """What the package's own metadata asks for, its extras included.

    Args:
        lines: in place of the metadata's.

    >>> requirements(['torch>=2.11', 'ray>=2.50; extra == "ray"'])[1].extra
    'ray'
    """
    found = []
    for line in (requires(PACKAGE) or []) if lines is None else lines:
        match = _REQUIREMENT.fullmatch(line.strip())
        if match:
            name, bounds, extra = match.groups()
            found.append(Requirement(name=name, bounds=bounds, extra=extra))
    return found


def satisfies(found: str, bounds: str) -> bool:
    """Whether a version lies within bounds, by its numbers.

    >>> satisfies("2.13.0+cpu", ">=2.11"), satisfies("0.18.1", ">=0.17,<0.18")
    (True, False)
    """
    own = _numbers(found)
    for sign, text in _BOUND.findall(bounds):
        bound = _numbers(text)
        length = max(len(own), len(bound))
        left, right = ((*each, *[0] * (length - len(each))) for each in (own, bound))
        fits = {
            ">=": left >= right,
            "<=": left <= right,
            ">": left > right,
            "<": left < right,
            "==": left == right,
            "!=": left != right,
            "~=": left >= right and left[: len(bound) - 1] == right[: len(bound) - 1],
        }
        if not fits[sign]:
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    """The release of a version: 2.13.0+cpu is (2, 13, 0)."""
    release = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def import_errors(modules: Sequence[str]) -> dict[str, str]:
    """Of each module why it cannot be imported; empty text where it can.

    One child process takes them in order; if it dies, the next goes on behind the one at fault.
    """
    errors: dict[str, str] = {}
    left = list(dict.fromkeys(modules))
    while left:
        code, messages, _ = _child(_IMPORT_ALL, left)
        for name, result in messages:
            if result is not None:
                errors[str(name)] = str(result).splitlines()[0] if result else ""
        finished = [name for name in left if name in errors]
        left = left[len(finished) :]
        if left:
            errors[left[0]] = f"the interpreter ended with code {code} while importing it"
            left = left[1:]
    return errors


def _child(code: str, arguments: Sequence[str]) -> tuple[int, list[Any], str]:
    """Run code in a child: its exit code, the messages it sent, and its last words."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHILD_LIMIT_S,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, [], f"not done after {CHILD_LIMIT_S:g} s"
    except OSError as error:
        return -1, [], str(error)
    messages = [
        json.loads(line.removeprefix(_MARK))
        for line in done.stdout.splitlines()
        if line.startswith(_MARK)
    ]
    words = [line for line in done.stderr.splitlines() if line.strip()]
    return done.returncode, messages, words[-1].strip() if words else ""


def _python() -> Check:
    found = platform.python_version()
    asked = str(metadata(PACKAGE)["Requires-Python"] or "")
    right = satisfies(found, asked)
    return Check(
        check="python",
        status=Status.OK if right else Status.BROKEN,
        found=f"{found} ({sys.executable}), asked {asked}",
        advice="" if right else f"make an environment with Python {asked}",
    )


def _installed(requirement: Requirement) -> str | None:
    return installed_version(requirement.name)


def _package(requirement: Requirement, errors: Mapping[str, str]) -> Check:
    """A package of the base, or one of an extra, which may be absent."""
    found, name = _installed(requirement), requirement.name
    extra = requirement.extra
    install = f'pip install "{PACKAGE}{f"[{extra}]" if extra else ""}"'
    if extra is None:
        bad, install = Status.BROKEN, f'pip install "{name}{requirement.bounds}"'
    else:
        bad = Status.LOOK
    label = name if extra is None else f"[{extra}] {name}"
    error = errors.get(requirement.module, "")
    if found is None:
        absent = Status.BROKEN if extra is None else Status.ABSENT
        return Check(check=label, status=absent, found="not installed", advice=install)
    if not satisfies(found, requirement.bounds):
        text = f"{found}, asked {requirement.bounds}"
        return Check(check=label, status=bad, found=text, advice=install)
    if error:
        advice = f"pip install --force-reinstall {name}"
        return Check(check=label, status=bad, found=f"{found}, {error}", advice=advice)
    return Check(check=label, status=Status.OK, found=f"{found}, asked {requirement.bounds}")


def _devices() -> Check:
    """CUDA devices with memory and bfloat16, as torch sees them."""
    code, messages, words = _child(_DEVICES, [])
    if code or not messages:
        advice = "reinstall torch; without it no policy runs"
        return Check(check="devices", status=Status.BROKEN, found=words, advice=advice)
    if not messages[0]:
        return Check(
            check="devices",
            status=Status.OK,
            found="no CUDA: CPU, float32",
            advice="small policies run; for large ones use a machine with CUDA and its torch",
        )
    return Check(check="devices", status=Status.OK, found="; ".join(map(str, messages[0])))


_DEVICES = f"""
import json, torch
rows = []
for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    with torch.cuda.device(index):
        free, total = torch.cuda.mem_get_info(index)
        bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        rows.append(f"cuda:{{index}} {{torch.cuda.get_device_name(index)}}, "
                    f"{{free / 2**30:.0f}} of {{total / 2**30:.0f}} GiB free, {{bf16}}")
print("{_MARK}" + json.dumps(rows), flush=True)
"""


def _threads() -> Check:
    """Cores that this process may use, and OMP_NUM_THREADS."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    given = os.environ.get("OMP_NUM_THREADS")
    found = f"{cores} cores, OMP_NUM_THREADS {given or 'not set'}"
    if given is None:
        advice = "thr-probe takes 2 threads; set OMP_NUM_THREADS to the cores that are yours"
        return Check(check="threads", status=Status.OK, found=found, advice=advice)
    if not given.isdigit() or int(given) > cores:
        advice = f"set OMP_NUM_THREADS to at most {cores}: more threads than cores are slower"
        return Check(check="threads", status=Status.LOOK, found=found, advice=advice)
    return Check(check="threads", status=Status.OK, found=found)


def _folder(path: Path) -> Check:
    """Whether the current folder can be written, and its free space."""
    try:
        with tempfile.NamedTemporaryFile(dir=path):
            free = shutil.disk_usage(path).free
    except OSError as error:
        advice = "change to a folder of yours, or name one with --out"
        return Check(
            check="current folder",
            status=Status.LOOK,
            found=f"cannot be written: {error.strerror}",
            advice=advice,
        )
    short = free < LEAST_FREE_BYTES
    return Check(
        check="current folder",
        status=Status.LOOK if short else Status.OK,
        found=f"can be written, {free / 2**30:.1f} GiB free",
        advice="free some space, or name another folder with --out" if short else "",
    )


def _hub(environment: Mapping[str, str]) -> Iterator[Check]:
    """The variables that decide where models come from."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME")
    given = [f"{name}={environment[name]}" for name in names if name in environment]
    given += ["HF_ENDPOINT set"] if "HF_ENDPOINT" in environment else []  # may hold a password
    offline = any(
        environment.get(name, "").upper() in {"1", "TRUE", "YES", "ON"} for name in names[:2]
    )
    yield Check(
        check="hub",
        status=Status.OK,
        found=", ".join(given) or "no variable set: models are fetched when first named",
        advice="only cached models load; unset HF_HUB_OFFLINE to fetch others" if offline else "",
    )


def _tried(trial: Trial) -> Check:
    code, messages, words = _child(_CALL, [trial.function])
    if code or not messages:
        return Check(
            check=trial.check,
            status=Status.BROKEN,
            found=words or f"the interpreter ended with code {code}",
            advice=trial.advice,
        )
    return Check(check=trial.check, status=Status.OK, found=str(messages[0]))
