"""What a method would do to saved rollouts, before a training run is paid for."""

from __future__ import annotations

from thr_probe.preview.analysis import preview
from thr_probe.preview.options import PreviewOptions

__all__ = ["PreviewOptions", "preview"]
