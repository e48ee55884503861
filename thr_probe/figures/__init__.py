"""Tables in, figures for print out: one plot_ function per analysis, one way of saving."""

from thr_probe.figures.advantage import plot_advantage
from thr_probe.figures.balance import plot_balance
from thr_probe.figures.classes import plot_classes
from thr_probe.figures.completions import plot_completions
from thr_probe.figures.curves import plot_curves
from thr_probe.figures.density import plot_density
from thr_probe.figures.drift import plot_drift
from thr_probe.figures.entropy import plot_entropy
from thr_probe.figures.gwhes import plot_gwhes
from thr_probe.figures.health import plot_health
from thr_probe.figures.mismatch import plot_mismatch
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.overlap import plot_overlap
from thr_probe.figures.passk import plot_pass_at_k
from thr_probe.figures.position import plot_position
from thr_probe.figures.preview import plot_preview
from thr_probe.figures.reflection import plot_reflection
from thr_probe.figures.retention import plot_retention
from thr_probe.figures.save import save_analysis, save_figure
from thr_probe.figures.split import plot_split
from thr_probe.figures.style import paper_style
from thr_probe.figures.tau import plot_tau
from thr_probe.figures.theory import plot_theory
from thr_probe.figures.timing import plot_timing
from thr_probe.figures.wordcloud import plot_wordcloud

__all__ = [
    "paper_style",
    "plot_advantage",
    "plot_balance",
    "plot_classes",
    "plot_completions",
    "plot_curves",
    "plot_density",
    "plot_drift",
    "plot_entropy",
    "plot_gwhes",
    "plot_health",
    "plot_mismatch",
    "plot_notice",
    "plot_overlap",
    "plot_pass_at_k",
    "plot_position",
    "plot_preview",
    "plot_reflection",
    "plot_retention",
    "plot_split",
    "plot_tau",
    "plot_theory",
    "plot_timing",
    "plot_wordcloud",
    "save_analysis",
    "save_figure",
]
