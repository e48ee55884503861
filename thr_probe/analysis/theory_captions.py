"""Captions of the simulations of appendix D.2, in LaTeX."""

from __future__ import annotations

import pandas as pd

from thr_probe.core.stats import Interval

_DIRECTION = r"$Q + \pi$"
_RESIDUAL = r"$e_o - \pi$"


def shape_caption() -> str:
    """Of the function -x log x."""
    return (
        "The function $-x \\log x$, a token's term of the entropy, on a linear (a) and a "
        "logarithmic (b) axis. It is largest at $x = 1/e$ with the value $1/e \\approx 0.368$ and "
        "falls to 0 towards both ends, so that in a distribution with one likely token the many "
        "unlikely ones each add little."
    )


def distributions_caption(label: str, spread: str) -> str:
    """Of the four example distributions."""
    return (
        r"Four distributions of vocabulary size $V$ with $\pi^\star$ at one token and the rest "
        f"spread {spread} over the others; tokens by falling probability. Rows: the distribution "
        rf"$\pi$, the factor {_RESIDUAL} of token $o$ ({_label(label)}, marked) in THR, and "
        rf"{_DIRECTION} with $Q = \pi \odot \log \pi / H$, along which the entropy $H$ falls to "
        r"first order, $\Delta H = -H \langle Q + \pi, \Delta l \rangle$. The number is the cosine "
        "between the last two."
    )


def cosines_caption(table: pd.DataFrame, label: str, spread: str, draws: int) -> str:
    """Of the heat maps, with what their sign means.

    Args:
        table: `cosines` of `alignment_grid`.
        label: how o is chosen.
        spread: in words.
        draws: of each cell.
    """
    figure, prose = table["cos_direction_residual"], table["cos_weights_label"]
    text = (
        rf"Cosines of (a) {_DIRECTION} and {_RESIDUAL} and (b) $-Q$ and $e_o$ by vocabulary size "
        rf"$V$ and probability $\pi^\star$ of one token, the rest spread {spread} over the others; "
        rf"$o$ is {_label(label)}, means over {_draws(draws)}. They lie in "
        f"{_range(figure)} and {_range(prose)}. "
        r"To first order the entropy changes by $\Delta H = -H \langle Q + \pi, \Delta l \rangle$ "
        r"and the signed THR of $o$ by $\langle e_o - \pi, \Delta l \rangle$: "
        r"$\cos(-Q - \pi, e_o - \pi)$ is minus (a), "
    )
    if label == "argmax":
        return text + (
            f"{_range(-figure)}, near $-1$ where $V$ and $\\pi^\\star$ are large. Signed THR "
            r"therefore goes with $-\Delta H$: what raises the likelihood of $o$ lowers the "
            r"entropy. The paper argues from (b) that $\Delta H$ and THR point in similar "
            r"directions, but $\pi_o$ outweighs $-Q_o$ in $-Q - \pi$. Its conclusion survives: "
            "$p < 0$ damps the tokens of positive THR, and so those that would reduce the entropy "
            "most."
        )
    return text + (
        f"{_range(-figure)}. With sampled labels the sign is not the same throughout: for a token "
        r"that is less likely than about $e^{-H}$ a rise of its likelihood raises the entropy."
    )


def labels_caption(table: pd.DataFrame, spread: str, draws: int, vocab_size: int) -> str:
    """Of the sweep over labels.

    Args:
        table: `sampled` of `label_sweep`.
        spread: in words.
        draws: of each cell.
        vocab_size: V of the second panel.
    """
    opposite = table["opposite_share"]
    return (
        rf"The sign of $\cos(Q + \pi, e_o - \pi)$ depends on the token $o$. (a) Share of labels "
        r"drawn from $\pi$ for which it is negative, so that a rise of their likelihood raises the "
        rf"entropy, by $V$ and $\pi^\star$ (the rest spread {spread}; means over {_draws(draws)}; "
        f"{_range(opposite)}). (b) The cosine of every token against its probability at "
        rf"$V = {vocab_size:,}$, one distribution for each $\pi^\star$: the likely "
        r"token reduces the entropy, the unlikely ones add to it. "
        r"Averaged over $o \sim \pi$ the inner product is exactly 0, because "
        r"$\mathbb{E}[e_o] = \pi$; that THR and the entropy go against each other is a statement "
        r"about likely tokens."
    )


def lemma_caption(slopes: dict[str, Interval], vocab_size: int, top: float, spread: str) -> str:
    """Of the first-order error.

    Args:
        slopes: log-log slope by direction.
        vocab_size: V.
        top: pi*.
        spread: in words.
    """
    told = ", ".join(f"{interval.value:.2f} ({name})" for name, interval in slopes.items())
    return (
        r"Lemma 1 holds to first order. (a) Entropy change after the logits move by $\Delta l$, "
        r"exact and as $-H \langle Q + \pi, \Delta l \rangle$, along $e_o - \pi$ with $o$ the most "
        r"likely token: the entropy falls. (b) Their difference against "
        rf"$\lVert \Delta l \rVert$ on logarithmic axes; fitted slopes are {told}, where an error "
        r"of second order has 2. One distribution with "
        rf"$V = {vocab_size:,}$ and $\pi^\star = {top:g}$, the rest spread {spread}."
    )


def _label(label: str) -> str:
    return r"drawn from $\pi$" if label == "sampled" else "the most likely token"


def _draws(draws: int) -> str:
    return f"{draws} draws" if draws > 1 else "one draw"


def _range(values: pd.Series) -> str:
    low, high = float(values.min()), float(values.max())
    if f"{low:.2f}" == f"{high:.2f}":
        return f"${low:.2f}$"
    return f"${low:.2f}$ to ${high:.2f}$"
