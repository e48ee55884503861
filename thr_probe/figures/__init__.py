"""Tables in, figures for print out: one plot_ function per analysis, one way of saving."""

from thr_probe.figures.curves import plot_curves
from thr_probe.figures.density import plot_density
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.overlap import plot_overlap
from thr_probe.figures.passk import plot_pass_at_k
from thr_probe.figures.reflection import plot_reflection
from thr_probe.figures.retention import plot_retention
from thr_probe.figures.save import save_analysis, save_figure
from thr_probe.figures.style import paper_style
from thr_probe.figures.timing import plot_timing
from thr_probe.figures.wordcloud import plot_wordcloud

__all__ = [
    "paper_style",
    "plot_curves",
    "plot_density",
    "plot_notice",
    "plot_overlap",
    "plot_pass_at_k",
    "plot_reflection",
    "plot_retention",
    "plot_timing",
    "plot_wordcloud",
    "save_analysis",
    "save_figure",
]
