"""Tables of what benchmarks/speed.py measured: time beside its ceiling, floors, memory and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from operations import WORK, Setting, Work, ceiling

Row = dict[str, Any]  # one measured child: side, seconds, cpu, peak_mib, anonymous_mib, parts, cpu_parts, facts
PLAIN, LOOP, GRAFT, GRAFT_FROZEN, WARM, FLOOR = (
    "plain",
    "plain, augmenting",
    "Graft",
    "Graft, frozen only",
    "warm",
    "floor",
)


def parts_of(side: str, work: Work) -> tuple[str, list[str]]:
    """Whose children did a piece of work, and in which of their parts."""
    if side in (PLAIN, LOOP):
        extra = ["unfrozen"] * work.unfrozen + ["extract", "svm"] * work.svm
        return side, ["build", "frozen", *extra]
    return GRAFT if work.unfrozen else GRAFT_FROZEN, ["features", "finetune", *["svm"] * work.svm]


def _without_svm(work: tuple[str, list[str]]) -> tuple[str, list[str]]:
    """The parts that operations.py counts: fitting the machine itself is another's algorithm, whatever the base."""
    return work[0], [part for part in work[1] if part != "svm"]


@dataclass(frozen=True)
class Measurements:
    """All children of one base and one number of views.

    Attributes:
        rows: one per child.
        tail: share of the base's multiply-adds after the cut.
        setting: how many images pass, and how often.
    """

    rows: Sequence[Row]
    tail: float
    setting: Setting

    def of(self, side: str) -> list[Row]:
        """The children of one side."""
        return [row for row in self.rows if row["side"] == side]

    def took(self, side: str, parts: Sequence[str], clock: str = "parts") -> float:
        """Median seconds of some parts together; clock: parts (wall) or cpu_parts."""
        return median(sum(row[clock][part] for part in parts) for row in self.of(side))

    def rest(self, side: str) -> float:
        """Median seconds of a child outside its timed parts: interpreter, imports, exit."""
        return median(row["seconds"] - sum(row["parts"].values()) for row in self.of(side))

    def speed(self) -> list[Row]:
        """One line per piece of work: both sides' seconds, the ratio, its ceiling and how much of it was reached."""
        lines = []
        for name, work in WORK.items():
            plain, graft = parts_of(PLAIN, work), parts_of(GRAFT, work)
            seconds, ours = self.took(*plain), self.took(*graft)
            most = ceiling(self.setting, work, self.tail)
            line: Row = {"work": name, "views": self.setting.views, "plain s": seconds, "Graft s": ours}
            line |= {"ratio": seconds / ours, "ceiling": most, "reached": f"{seconds / ours / most:.0%}"}
            line["by CPU"] = self.took(*plain, "cpu_parts") / self.took(*graft, "cpu_parts")
            line["without SVC"] = self.took(*_without_svm(plain)) / self.took(*_without_svm(graft))
            line["with imports"] = (seconds + self.rest(PLAIN)) / (ours + self.rest(graft[0]))
            if self.of(LOOP):
                with_views = ours + self.took(GRAFT, ["augment"])
                augmenting = self.took(*parts_of(LOOP, work))
                line |= {
                    "augmenting s": augmenting,
                    "Graft + augment s": with_views,
                    "ratio to it": augmenting / with_views,
                }
            lines.append(line)
        return lines

    def parts(self) -> list[Row]:
        """Median seconds of every part of every side, by wall and by CPU."""
        lines = []
        for side in dict.fromkeys(row["side"] for row in self.rows):
            for part in self.of(side)[0]["parts"]:
                wall, cpu = self.took(side, [part]), self.took(side, [part], "cpu_parts")
                lines.append({"side": side, "part": part, "seconds": wall, "CPU seconds": cpu})
            lines.append({"side": side, "part": "imports and the rest", "seconds": self.rest(side), "CPU seconds": ""})
        return lines

    def memory(self) -> list[Row]:
        """Highest memory of every side's children, MiB."""
        return [
            {
                "side": side,
                "peak MiB": median(row["peak_mib"] for row in self.of(side)),
                "without files MiB": median(row["anonymous_mib"] for row in self.of(side)),
            }
            for side in dict.fromkeys(row["side"] for row in self.rows)
        ]

    def floors(self) -> list[Row]:
        """The features stage beside the bare base in a loop, and that beside the machine's convolution rate."""
        facts = self.of(FLOOR)[0]["facts"]
        lines = []
        for clock, name in (("parts", "wall"), ("cpu_parts", "CPU")):
            trunk, stage = self.took(FLOOR, ["trunk"], clock), self.took(GRAFT, ["features"], clock)
            rate = facts["convolution_operations"] / self.took(FLOOR, ["convolution"], clock) / 1e9
            best = facts["base_operations"] / rate / 1e9
            line: Row = {"clock": name, "rows": facts["rows"], "first call s": self.took(FLOOR, ["first"], clock)}
            line |= {"bare base s": trunk, "features s": stage}
            line |= {"features / bare": stage / trunk, "warm s": self.took(WARM, ["features"], clock)}
            line |= {"convolution GMAC/s": rate, "bare / convolution rate": trunk / best}
            lines.append(line)
        return lines

    def accuracy(self) -> list[Row]:
        """Validation accuracy of each side and of their difference, image by image, with 95 % intervals."""
        lines = []
        for work, plain, side, graft in (
            ("frozen", "frozen", GRAFT_FROZEN, "finetune"),
            ("frozen + unfrozen", "unfrozen", GRAFT, "finetune"),
            ("SVM", "svm", GRAFT, "svm"),
        ):
            ours = np.array(self.of(side)[0]["facts"]["correct"][graft])
            line: Row = {"of": work, "Graft": proportion(ours)}
            for other in (PLAIN, LOOP):
                if self.of(other):
                    theirs = np.array(self.of(other)[0]["facts"]["correct"][plain])
                    line |= {other: proportion(theirs), f"Graft - {other}": difference(ours, theirs)}
            lines.append(line)
        return lines


def proportion(correct: np.ndarray) -> str:
    """Accuracy with Wilson's interval."""
    from scipy.stats import binomtest

    low, high = binomtest(int(correct.sum()), len(correct)).proportion_ci(method="wilson")
    return f"{correct.mean():.3f} [{low:.3f}, {high:.3f}] (n={len(correct)})"


def difference(one: np.ndarray, other: np.ndarray) -> str:
    """Mean difference with its normal interval, from the same images on both sides."""
    gained = one - other
    half = 1.96 * gained.std(ddof=1) / np.sqrt(len(gained))
    return f"{gained.mean():+.3f} ± {half:.3f}"
