"""Rollouts that other programs saved become a run. Nothing here loads torch or transformers."""

from __future__ import annotations

from thr_probe.importing.report import ImportReport
from thr_probe.importing.run import import_rollouts
from thr_probe.importing.settings import ImportSettings
from thr_probe.importing.words import Words

__all__ = ["ImportReport", "ImportSettings", "Words", "import_rollouts"]
