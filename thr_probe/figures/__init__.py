"""Tables in, figures for print out: one plot_ function per analysis, one way of saving."""

from thr_probe.figures.notice import plot_notice
from thr_probe.figures.save import save_analysis, save_figure
from thr_probe.figures.style import paper_style

__all__ = ["paper_style", "plot_notice", "save_analysis", "save_figure"]
