"""The leaderboard in words and rounded numbers, for Markdown, a terminal and the page."""

from __future__ import annotations

import pandas as pd

from graft.reporting.leaderboard import as_records, final_split


def percent(value: float) -> str:
    """93.6 %."""
    return f"{100 * value:.1f} %"


def interval(low: float, high: float) -> str:
    """90.6–95.8 %."""
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def duration(seconds: float) -> str:
    """4.2 s, 42 s or 3 min 20 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02d} s"


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard as text for people: rounded, accuracies with their intervals."""
    rows = []
    for row in as_records(frame):
        cells = {"model": row["model"], "kind": row["kind"], "champion": "champion" if row["champion"] else ""}
        for prefix, title in (("val", "validation"), ("test", "test")):
            if prefix == "test" and not row["n_test"]:
                continue
            accuracy, low, high = (row[f"{prefix}_accuracy{end}"] for end in ("", "_low", "_high"))
            cells[f"{title} accuracy"] = f"{percent(accuracy)} ({interval(low, high)})"
            cells[f"{title} macro-F1"] = f"{row[f'{prefix}_macro_f1']:.3f}"
            cells[f"{title} log loss"] = f"{row[f'{prefix}_log_loss']:.3f}"
        rows.append(cells | {"parameters": f"{row['parameters']:,}", "training": duration(row["train_seconds"])})
    return pd.DataFrame(rows)


def to_markdown(frame: pd.DataFrame, confidence: float) -> str:
    """The readable leaderboard as a Markdown table under one line that says how to read it."""
    table = readable(frame)
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * 3 + " ---: |" * (len(table.columns) - 3)]
    lines += ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
    sizes = f"{frame['n_validation'].iloc[0]} validation and {frame['n_test'].iloc[0]} test images"
    return f"{sizes}; accuracies with {100 * confidence:g} % intervals.\n\n" + "\n".join(lines) + "\n"


def to_text(frame: pd.DataFrame) -> str:
    """The readable leaderboard for a terminal, without the metrics that only specialists compare."""
    table = readable(frame)
    table = table[[name for name in table.columns if not name.endswith(("macro-F1", "log loss"))]]
    lines = [list(table.columns), *table.itertuples(index=False)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.columns))]
    pad = ["<"] * 3 + [">"] * (len(widths) - 3)
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, pad, widths, strict=True)).rstrip()
        for line in lines
    )


def summary(frame: pd.DataFrame) -> str:
    """One line: how many models, the champion, and the accuracy to quote for it."""
    split, prefix = final_split(frame)
    first = frame.iloc[0]
    accuracy, low, high = (first[f"{prefix}_accuracy{end}"] for end in ("", "_low", "_high"))
    return (
        f"{len(frame)} model(s), champion {first['model']} with {percent(accuracy)} ({interval(low, high)}) "
        f"of {first[f'n_{split}']:,} {split} images"
    )
