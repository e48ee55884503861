"""The README's Python runs, and its links lead somewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_python_of_the_readme_runs_as_it_stands(index, tmp_path):
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[index]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_the_readme_holds_the_examples_it_promises():
    assert len(BLOCKS) == 2
    assert "token_hidden_reward" in BLOCKS[0]


def test_links_to_files_lead_somewhere():
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_functions_named_in_the_table_exist():
    names = re.findall(r"`((?:core|analysis)\.[a-z_.0-9]+)`", README)
    assert len(names) > 8
    for name in names:
        module, _, attribute = f"thr_probe.{name}".rpartition(".")
        known = importlib.import_module(module)
        assert hasattr(known, attribute) or find_spec(f"thr_probe.{name}"), name
