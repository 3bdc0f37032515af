"""A fit against what was measured: one dot a step, for steps that were fitted and steps that were held out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from chunkprefill.measure import measured
from chunkprefill.metrics.breakdown import OverheadFit
from chunkprefill.plots.style import COLOURS, Picture, Table, figure, picture


def fit_picture(fits: Mapping[str, OverheadFit], *, caption: str, source: str = "") -> Picture:
    """Measured against predicted, a panel a fit: {what was fitted: fit}; both axes in µs, on a log scale.

    A dot on the line was predicted exactly. Filled dots were fitted, hollow ones held out; the broken lines
    are 20% off.
    """
    if not fits:
        raise ValueError("no fits to draw: {what was fitted: fit} is empty")
    rows = []
    with figure(3.1 * len(fits)) as fig:
        fig.get_layout_engine().set(h_pad=0.12)  # type: ignore[union-attr,call-arg]
        axes = fig.subplots(len(fits), squeeze=False)[:, 0]
        for ax, (name, fit) in zip(axes, fits.items()):
            for steps, face in ((fit.fitted, COLOURS["scheduling"]), (fit.held_out, "none")):
                want, got = (1e6 * np.array([step[k] for step in steps]) for k in (4, 3))
                ax.plot(want, got, "o", color=COLOURS["scheduling"], markerfacecolor=face, markersize=7)
            every = np.array([step[3:] for step in (*fit.fitted, *fit.held_out)]) * 1e6
            low, high = 0.8 * every.min(), 1.25 * every.max()
            for slope, dash in ((1.0, "-"), (1.2, ":"), (1 / 1.2, ":")):
                ax.plot(
                    [low, high], [slope * low, slope * high], dash, color="#000000", linewidth=1, zorder=0
                )
            ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
            ticks = [t for t in (m * 10.0**k for k in range(-1, 7) for m in (1, 2, 5)) if low <= t <= high]
            ticks = ticks[:: 1 + len(ticks) // 7]
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_ticks(ticks, [f"{t:,g}" for t in ticks])
                axis.set_ticks([], minor=True)
            ax.set_title(f"{name}: measured, µs a step")
            ax.set_xlabel("predicted, µs a step")
            errors = measured(fit.error, "%"), measured(fit.held_out_error, "%") if fit.held_out else "–"
            rows.append((name, measured(fit.r2, "%"), *errors, len(fit.fitted), len(fit.held_out)))
        header = ("", "variance explained", "error, fitted", "error, held out", "steps", "held out")
        words = "; ".join(f"{r[0]}: {r[2]} on {r[4]} steps fitted, {r[3]} on {r[5]} not fitted" for r in rows)
        return picture(
            fig,
            alt=f"Measured times of scheduling against predicted ones. Median errors: {words}.",
            caption=caption,
            badge="measured",
            source=source,
            table=Table(header=header, rows=rows),
        )
