"""A browser for the pages, and the report of the committed trace."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LAB_RUN = Path("reports/lab/run")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests that need it skip where it or playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def lab_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with report.html of the committed trace, its analyses in files/, latex/."""
    # imported here so that the shape checks of the pytest plugin are installed first
    build = importlib.import_module("thr_probe.report.build")
    folder = tmp_path_factory.mktemp("lab")
    root = Path(__file__).parents[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)  # the page shows paths as they were typed
        build.write_report(
            [LAB_RUN],
            folder / "report.html",
            build.ReportOptions(command="thr-probe report reports/lab/run"),
            latex=folder / "latex",
            keep=folder / "files",
        )
    return folder
