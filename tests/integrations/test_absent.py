"""What is said where the other tool is not installed, and that asking costs nothing."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from thr_probe.errors import PrerequisiteError, UsageError
from thr_probe.integrations.trl_options import THROptions, check_version

HEAVY = ["torch", "transformers", "trl", "pandas", "matplotlib", "thr_probe.policy"]


def test_importing_the_package_of_integrations_loads_nothing():
    program = (
        "import sys, thr_probe.integrations; print([m for m in sys.argv[1:] if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *HEAVY], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_without_trl_the_range_and_what_to_install_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "thr_probe.integrations.trl", raising=False)
    with pytest.raises(PrerequisiteError, match=r"needs TRL 1[.]16[.]x") as caught:
        importlib.import_module("thr_probe.integrations.trl")
    assert caught.value.hint == 'pip install "trl>=1.16,<1.17"'


@pytest.mark.parametrize("version", ["1.16.0", "1.16.3", "1.16.0.dev0"])
def test_versions_of_the_known_minor_release_pass(version):
    check_version(version)


@pytest.mark.parametrize("version", ["1.15.0", "1.17.0", "2.0.0", "0.29.1", "1.160.0"])
def test_other_versions_are_refused(version):
    with pytest.raises(PrerequisiteError, match=r"built on TRL 1[.]16[.]x"):
        check_version(version)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"p": 1.0}, "strictly between -1 and 1"),
        ({"p": float("nan")}, "strictly between -1 and 1"),
        ({"max_rounds": 0}, "max_rounds must be at least 1"),
    ],
)
def test_impossible_options_are_refused(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        THROptions(**options)
