"""How a score of the frozen bases foretells what was trained on them, as SVG text."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from graft.reporting.marks import KINDS, MARKERS, name_points, percent_sign
from graft.reporting.svg import STYLE, WIDTH, to_svg

SCORES = {"linear_probe": "linear probe of the frozen base", "logme": "LogME of the frozen base"}
KIND_NAMES = {"finetune": "fine-tuned", "svm": "SVM"}


def score_against_accuracy(transfer: pd.DataFrame, frame: pd.DataFrame, accuracy: str, score: str, name: str) -> str:
    """Final accuracy of the fine-tuned bases and of the SVMs against a score, as SVG.

    Args:
        transfer: one row per backbone, with the score's column.
        frame: the leaderboard.
        accuracy: its column of the final accuracy.
        score: linear_probe or logme.
        name: tells the figure's ids from those of other figures on one page.
    """
    scores = transfer.set_index("backbone")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH * 0.9), layout="constrained")
        axes = figure.add_subplot()
        points, names = [], []
        for kind, label in KIND_NAMES.items():
            rows = frame[(frame["kind"] == kind) & frame["backbone"].isin(scores.index)]
            x = scores.loc[rows["backbone"], score].to_numpy(float)
            y = rows[accuracy].to_numpy(float)
            margins = np.abs(rows[[f"{accuracy}_low", f"{accuracy}_high"]].to_numpy(float).T - y)
            axes.errorbar(x, y, margins, color=KINDS[kind], fmt=MARKERS[kind], ms=7, lw=1, label=label, alpha=0.85)
            points += list(zip(x.tolist(), y.tolist(), strict=True))
            names += rows["backbone"].tolist()
        axes.margins(x=0.2)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(percent_sign)
        if score == "linear_probe":
            axes.xaxis.set_major_formatter(percent_sign)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set(xlabel=SCORES[score], ylabel="final accuracy")
        axes.tick_params(length=0)
        axes.grid()
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
        figure.draw_without_rendering()  # settles the layout, in which the names look for room
        name_points(axes, points, names, [False] * len(points))
        return to_svg(figure, name)
