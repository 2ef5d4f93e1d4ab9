"""The leaderboard in words and rounded numbers, for Markdown, a terminal and the page."""

from __future__ import annotations

import pandas as pd

from graft.reporting import markdown
from graft.reporting.leaderboard import as_records, final_split

MINUS = "\u2212"
NO_INTERVAL = "no interval"  # where an end is None, for want of images, groups or trainings that differ


def percent(value: float) -> str:
    """93.6 %."""
    return f"{100 * value:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """90.6–95.8 %, or NO_INTERVAL."""
    if low is None or high is None:
        return NO_INTERVAL
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def span(low: float | None, high: float | None) -> str:
    """0.906–0.958, of numbers that are no shares, or NO_INTERVAL."""
    if low is None or high is None:
        return NO_INTERVAL
    return f"{low:.3f}–{high:.3f}".replace("-", MINUS)


def points(difference: float) -> str:
    """+1.2 or −0.4: percentage points."""
    written = f"{100 * difference:+.1f}"
    return "0.0" if float(written) == 0 else written.replace("-", MINUS)


def p_value(value: float) -> str:
    """0.31, 0.004 or < 0.001."""
    return "< 0.001" if value < 0.0005 else f"{value:.3f}" if value < 0.095 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """4.2 s, 42 s or 3 min 20 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02d} s"


def milliseconds(value: float) -> str:
    """0.42 ms, 4.2 ms or 42 ms."""
    return f"{value:.2f} ms" if value < 0.995 else f"{value:.1f} ms" if value < 9.95 else f"{value:,.0f} ms"


def magnitude(value: float, unit: str = "") -> str:
    """950, 21.0 k, 1.43 M or 2.10 G, with a unit such as B."""
    for prefix in ("", "k", "M", "G", "T"):
        if value < 999.5 or prefix == "T":
            break
        value /= 1000
    digits = f"{value:.0f}" if not prefix or value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
    return f"{digits} {prefix}{unit}".rstrip()


def times(factor: float) -> str:
    """1.4 times or 12 times."""
    return f"{factor:.1f} times" if factor < 9.95 else f"{factor:.0f} times"


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard as text for people: rounded, accuracies with their intervals."""
    rows = []
    for row in as_records(frame):
        cells = {"model": row["model"], "kind": row["kind"], "against the champion": row["verdict"]}
        for prefix, title in (("val", "validation"), ("test", "test")):
            if prefix == "test" and not row["n_test"]:
                continue
            accuracy, low, high = (row[f"{prefix}_accuracy{end}"] for end in ("", "_low", "_high"))
            cells[f"{title} accuracy"] = f"{percent(accuracy)} ({interval(low, high)})"
            cells[f"{title} macro-F1"] = f"{row[f'{prefix}_macro_f1']:.3f}"
            cells[f"{title} log loss"] = f"{row[f'{prefix}_log_loss']:.3f}"
            cells[f"{title} calibration error"] = percent(row[f"{prefix}_calibration_error"])
        if row["latency_ms"] is not None:
            cells["one image"] = milliseconds(row["latency_ms"])
        rows.append(cells | {"parameters": f"{row['parameters']:,}", "training": duration(row["train_seconds"])})
    return pd.DataFrame(rows).fillna("")


def to_markdown(frame: pd.DataFrame, confidence: float) -> str:
    """The readable leaderboard as a Markdown table under one line that says how to read it."""
    shown = readable(frame)
    table = markdown.table(list(shown.columns), shown.to_numpy().tolist(), words=3)
    further = f" and {frame['n_test'].iloc[0]} test" if frame["n_test"].iloc[0] else ""
    sizes = f"{frame['n_validation'].iloc[0]} validation{further} images"
    tested = "; differences from the champion by McNemar's exact test, corrected by Holm" if len(frame) > 1 else ""
    return f"{sizes}; accuracies with {100 * confidence:g} % intervals{tested}.\n\n{table}\n"


def to_text(frame: pd.DataFrame) -> str:
    """The readable leaderboard for a terminal, without the metrics that only specialists compare."""
    table = readable(frame)
    special = ("macro-F1", "log loss", "calibration error")
    table = table[[name for name in table.columns if not name.endswith(special)]]
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
