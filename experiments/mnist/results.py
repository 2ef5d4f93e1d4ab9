"""Print what a run on MNIST came to, as the first table of results.md; README.md beside it says how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graft.artifacts import read_predictions
from graft.intervals import wilson_interval

REPORTS = Path("reports")
REPORTED = {"lecture_dropout": "99.19 %, loss 0.0249", "lecture_small": "98.92 %"}  # by the lectures, on test


def line_of(row: dict[str, Any]) -> dict[str, str]:
    """A model of the leaderboard as a line of the table; its right answers are counted again from its predictions."""
    model = row["model"]
    predictions = read_predictions(REPORTS / "runs" / model / "predictions.parquet")
    labels, probabilities = predictions.split("test")
    right, n = int((probabilities.argmax(axis=1) == labels).sum()), len(labels)
    low, high = (100 * end for end in wilson_interval(right, n, 0.95))
    own = predictions.uncalibrated()[(predictions.rows["split"] == "test").to_numpy()]
    history = REPORTS / "history" / f"{model}.csv"
    epochs = len(pd.read_csv(history)) if history.exists() else 0
    return {
        "model": model,
        "parameters": f"{row['parameters']:,}",
        "right": f"{right:,} of {n:,}",
        "test accuracy, %": f"{100 * right / n:.2f} ({low:.2f}-{high:.2f})",
        "reported": REPORTED.get(model, ""),
        "test loss": f"{-np.log(own[np.arange(n), labels]).mean():.4f}",
        "calibrated": f"{row['test_log_loss']:.4f}",
        "epochs": str(epochs or ""),
        "s": f"{row['train_seconds']:.0f}",
        "s per epoch": f"{row['train_seconds'] / epochs:.1f}" if epochs else "",
    }


def main() -> None:
    """Print the table, the most accurate first, and what it stands on."""
    rows = json.loads((REPORTS / "leaderboard.json").read_text(encoding="utf-8"))
    with (REPORTS / "runs" / rows[0]["model"] / "journal.jsonl").open(encoding="utf-8") as journal:
        start = json.loads(journal.readline())
    counts = pd.read_csv(REPORTS / "data" / "counts.csv", index_col="label").sum()
    listed = ", ".join(f"{count:,} {part}" for part, count in counts.items() if count)
    print(f"Images: {listed}. Commit {start['commit'][:7]}, {start['started'][:10]}.\n")
    lines = [line_of(row) for row in sorted(rows, key=lambda row: -row["test_accuracy"])]
    print("| " + " | ".join(lines[0]) + " |\n|" + " --- |" * len(lines[0]))
    print("\n".join("| " + " | ".join(line.values()) + " |" for line in lines))


if __name__ == "__main__":
    main()
