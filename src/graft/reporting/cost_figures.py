"""What accuracy costs, as SVG text."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from graft.reporting.leaderboard import as_records, final_split
from graft.reporting.marks import KINDS, MARKERS, name_points, percent_sign
from graft.reporting.svg import GRID, MUTED, STYLE, WIDTH, to_svg


def pareto(frame: pd.DataFrame, name: str) -> str:
    """Final accuracy against the latency of one image, with intervals and quartiles, the frontier named, as SVG."""
    split, prefix = final_split(frame)
    rows = [row for row in as_records(frame) if row["latency_ms"] is not None]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * 1.15, WIDTH * 0.9), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for row in rows:
            x, y = row["latency_ms"], row[f"{prefix}_accuracy"]
            colour, clear = KINDS[row["kind"]], 0.6 if row["pareto"] else 0.28
            axes.plot(
                [x, x], [row[f"{prefix}_accuracy_low"], row[f"{prefix}_accuracy_high"]], color=colour, alpha=clear
            )
            if row["latency_ms_low"] is not None and row["latency_ms_high"] is not None:
                axes.plot([row["latency_ms_low"], row["latency_ms_high"]], [y, y], color=colour, alpha=clear)
            axes.plot(x, y, MARKERS[row["kind"]], color=colour, ms=8 if row["pareto"] else 6, zorder=3)
        frontier = sorted((row["latency_ms"], row[f"{prefix}_accuracy"]) for row in rows if row["pareto"])
        axes.step(*zip(*frontier, strict=True), where="post", color=MUTED, lw=1, ls=(0, (4, 2)), zorder=1)
        times = [value for row in rows for value in (row["latency_ms"], row["latency_ms_low"], row["latency_ms_high"])]
        times = [value for value in times if value is not None]
        axes.set_xlim(min(times) / 1.35, max(times) * 1.5)
        axes.set(xlabel="time for one image, ms (each step to the right costs more)", ylabel=f"{split} accuracy")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(percent_sign)
        axes.tick_params(which="both", length=0)
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        figure.draw_without_rendering()  # settles the layout, in which the names look for room
        name_points(
            axes,
            [(row["latency_ms"], row[f"{prefix}_accuracy"]) for row in rows],
            [row["model"] for row in rows],
            [row["pareto"] for row in rows],
        )
        return to_svg(figure, name)
