"""Pictures for `dvc plots`: its own charts need a script from the network, pictures need nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from graft.metrics import confusion
from graft.reporting.comparison import Comparison, Run
from graft.reporting.leaderboard import final_split
from graft.reporting.marks import percent_sign
from graft.reporting.svg import INK, MUTED, STYLE, shortened

OPAQUE = {**STYLE, **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "white")}
# Okabe and Ito's colours, which the colour-blind tell apart, without the yellow that white swallows.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))  # another one once the colours are used up
PIXELS_PER_INCH = 144
COLUMNS = 3  # of confusion matrices
NAME_LENGTH = 24
NUMBERED_CLASSES = 12  # up to here each cell has room for its count
NAMED_CLASSES = 24  # up to here each class has room for its name


def draw_dvc_plots(comparison: Comparison) -> dict[str, bytes]:
    """PNG pictures by file name, in fixed colours on white.

    learning_curves.png has the validation accuracy and loss of every network over its epochs, confusion.png the
    confusion matrix of every model on the final split, the champion first.
    """
    split, _ = final_split(comparison.frame)
    with matplotlib.rc_context(OPAQUE):
        return {
            "learning_curves.png": _png(_learning_curves(comparison.runs, comparison.champion.model)),
            "confusion.png": _png(_confusion_matrices(comparison.runs, split)),
        }


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=PIXELS_PER_INCH, metadata={"Software": None})  # else its version
    return content.getvalue()


def _learning_curves(runs: Mapping[str, Run], champion: str) -> Figure:
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    networks = [run for run in runs.values() if run.history is not None]
    for place, run in enumerate(networks):
        look: dict[str, Any] = {
            "color": COLOURS[place % len(COLOURS)],
            "ls": DASHES[place // len(COLOURS) % len(DASHES)],
        }
        look |= {"label": shortened(run.model, NAME_LENGTH), "lw": 2.4 if run.model == champion else 1.4}
        _draw_history(accuracy, run, "val_accuracy", look)
        _draw_history(loss, run, "val_loss", look)
    accuracy.set_title("validation accuracy")
    accuracy.yaxis.set_major_formatter(percent_sign)
    loss.set_title("validation loss")
    loss.set_ylim(bottom=0)
    for axes in (accuracy, loss):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    thick = "thick: the champion; " if any(run.model == champion for run in networks) else ""
    figure.supxlabel(f"{thick}dot: a later phase begins", x=0.01, ha="left", fontsize=9, color=MUTED)
    return figure


def _draw_history(axes: Any, run: Run, column: str, look: Mapping[str, Any]) -> None:
    history = run.history
    assert history is not None
    begins = history["phase"].ne(history["phase"].shift())
    begins.iloc[0] = len(history) == 1  # a line through one point is invisible
    axes.plot(history["epoch"], history[column], **look)
    axes.plot(history["epoch"][begins], history[column][begins], ls="none", marker="o", ms=4.5, color=look["color"])


def _confusion_matrices(runs: Mapping[str, Run], split: str) -> Figure:
    rows = -(-len(runs) // COLUMNS)
    columns = min(COLUMNS, len(runs))
    figure = Figure(figsize=(3.4 * columns, 3.5 * rows + 0.3), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places[len(runs) :]:
        axes.set_axis_off()
    for place, (axes, run) in enumerate(zip(places, runs.values(), strict=False)):
        counts = confusion(*run.predictions.split(split))
        _draw_matrix(axes, counts, run.predictions.classes)
        accuracy = np.trace(counts) / counts.sum()
        champion = ", champion" if place == 0 else ""
        axes.set_title(f"{shortened(run.model, NAME_LENGTH)}, {accuracy:.1%}{champion}".replace("%", " %"))
    figure.supxlabel(f"predicted class ({split} images)", fontsize=10, color=MUTED)
    figure.supylabel("actual class", fontsize=10, color=MUTED)
    return figure


def _draw_matrix(axes: Any, counts: np.ndarray, classes: tuple[str, ...]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1.2, interpolation="none")  # the root shows rare confusions
    if len(classes) <= NUMBERED_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else INK
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=7)
    if len(classes) <= NAMED_CLASSES:
        names = [shortened(name) for name in classes]
        upright = max(map(len, names)) * len(names) <= 30
        axes.set_xticks(range(len(names)), names, rotation=0 if upright else 90)
        axes.set_yticks(range(len(names)), names)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.tick_params(length=0, labelsize=7)
    for spine in axes.spines.values():
        spine.set_visible(True)
