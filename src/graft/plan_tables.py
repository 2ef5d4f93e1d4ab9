"""The plan of a run as text for people: tables of a terminal's width, and what their figures leave out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from graft.counting import Counts
from graft.feature_sets import IMAGE, TOP
from graft.forecasts import Checked, Rate
from graft.params import Params
from graft.planning import COPIES, Option, Plan, amount, tail_epoch

if TYPE_CHECKING:
    from graft.explain import Forecast
    from graft.vector_plans import VectorPlan

WIDTH = 120
SHOWN_OPTIONS = 8
WIDEST_NAMES = 40  # characters, in a table that leaves the rest of a line to figures
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ORIGINS = {"run": "the last features stage", "calibration": "a few batches"}


def header(params: Params, counts: Counts, unasked: str | None) -> str:
    """What all backbones have in common."""
    views = params.augment.views
    rows = counts.train * views + counts.validation + counts.test
    lines = [
        f"{counts.train:,} training images x {views} views + {counts.validation:,} validation + {counts.test:,} test "
        f"= {rows:,} rows,",
        f"{counts.origin}.",
    ]
    if unasked:
        lines.append(f"Nothing is known to be in the store: {unasked}.")
    return "\n".join(lines)


def page(forecast: Forecast) -> str:
    """What the next run does with one backbone, and what else it could have done."""
    base, rate, plan = forecast.row.base, forecast.rate, forecast.plan
    until = " or ".join(plan.segments.cuts)
    what = f"{base.application} at {base.input_size} px, width {base.width:g}, " + (
        f"frozen until {until}" if until else "trained whole in phase 2"
    )
    lines = [
        f"\n{fill(f'{forecast.name}: {what}', WIDTH, subsequent_indent='  ')}",
        "",
        *_table(["stage", "does", "rows", "GMAC", "time", "bytes"], _stages(forecast), left=2),
        "",
        *_options(plan, rate),
        "",
        f"  {_saving(plan)}; {amount(rate.per_second, 'MAC')}/s here, timed by {ORIGINS[rate.origin]}.",
    ]
    return "\n".join([*lines, *_last(forecast.last)])


def footer(params: Params, forecasts: Sequence[Forecast], used: int, store: Path) -> str:
    """The sums over all backbones, and how to read them."""
    seconds = sum(_seconds(forecast) for forecast in forecasts)
    work = sum(forecast.work.multiply_adds + _training(forecast.plan.chosen) for forecast in forecasts)
    kept = sum(forecast.plan.output_bytes for forecast in forecasts)
    return "\n".join(
        [
            f"\nAll backbones: {amount(work, 'MAC')}, {duration(seconds)} at most, {amount(kept, 'B')} kept.",
            f"Store: {amount(used, 'B')} of at most {params.features.store_gb:g} GB in {store}.",
            "GMAC are 10^9 multiply-adds in the base; training passes count three forward ones. Heads, the SVM's own",
            "search and the overhead of a step come on top. Early stopping (patience) makes epochs fewer.",
        ]
    )


def _stages(forecast: Forecast) -> list[list[str]]:
    """What each stage passes through the base."""
    plan, work, rate = forecast.plan, forecast.work, forecast.rate
    load, chosen = plan.workload, plan.chosen
    read = plan.segments.nearest(plan.stored, TOP)
    both = f"({load.train:,} + {load.validation:,})"
    rows = [
        ["features", "computes", f"{work.computed:,}", *_cost(work.multiply_adds, rate), ""],
        ["", "reuses from the store", f"{work.reused:,}", "", "", ""],
    ]
    for point, facts in plan.to_json()["points"].items():
        rows.append(["", f"keeps {point}", f"{load.rows:,}", "", "", amount(facts["bytes"], "B")])
    if plan.vectors and plan.vectors.kept:
        rows.append(["", "keeps the SVM's vectors", f"{load.rows:,}", "", "", amount(plan.vectors.output_bytes, "B")])
    rows.append(["phase 1", f"trains heads, from {read}", f"{load.epochs} x {both}", *_cost(chosen.phase_1, rate), ""])
    phases = f"{load.unfrozen_epochs:g}"
    for cut in (plan.segments.cuts or (IMAGE,)) if load.unfrozen_epochs else ():
        what = "trains the whole base" if cut == IMAGE else f"trains after {cut}"
        total = round(load.unfrozen_epochs * tail_epoch(plan.segments, load, plan.stored, cut))
        start = plan.segments.nearest(plan.stored, cut)
        what += "" if start == cut else f", from {start}"
        rows.append(["phase 2", what, f"{phases} x {both}", *_cost(total, rate), ""])
    at, passed = (read, chosen.svm) if plan.vectors is None else _svm(plan.vectors)
    return [*rows, ["svm", f"fits, from {at}", f"{load.rows:,}", *_cost(passed, rate), ""]]


def _svm(vectors: VectorPlan) -> tuple[str, int]:
    """What a support vector machine that stands not on the top alone is fitted from, and its multiply-adds."""
    return ("its vectors", 0) if vectors.kept else (vectors.start, vectors.rows * vectors.multiply_adds)


def _options(plan: Plan, rate: Rate) -> list[str]:
    """Every option's costs, the cheapest first, the chosen one marked."""
    letters = {point: LETTERS[number] for number, point in enumerate(plan.segments.cuts)}
    long = len(", ".join(plan.segments.points[1:])) > WIDEST_NAMES
    shown = plan.options[:SHOWN_OPTIONS]
    shown += tuple(option for option in (plan.chosen, _nothing(plan)) if option not in shown)
    rows = []
    for option in shown:
        names = [letters.get(point, point) if long else point for point in option.stored]
        costs = (option.features, option.phase_1, option.phase_2, option.svm)
        mark = "> " if option is plan.chosen else "  "
        disk = amount(option.bytes, "B") + ("  " if option.fits else " !")
        total = _cost(option.multiply_adds, rate)
        rows.append([mark + (", ".join(names) or "nothing"), *map(_giga, costs), *total, disk])
    heading = ["  to keep", "features", "phase 1", "phase 2", "svm", "GMAC", "time", "disk  "]
    lines = _table(heading, rows, left=1)
    if long:
        legend = ", ".join(f"{letter}: {point}" for point, letter in letters.items())
        lines.append(fill(legend, WIDTH, initial_indent="  ", subsequent_indent="  "))
    if len(shown) < len(plan.options):
        lines.append(f"  and {len(plan.options) - len(shown):,} more")
    lines.append(f"  disk: {COPIES} copies: the stage's output, DVC's cache of it (which may link), the store")
    if not all(option.fits for option in plan.options):
        lines.append(f"  !: more than features.max_gb ({plan.max_gb:g} GB) allows")
    return lines


def _nothing(plan: Plan) -> Option:
    return next(option for option in plan.options if not option.stored)


def _saving(plan: Plan) -> str:
    if not plan.stored:
        return f"Nothing is kept: of what helps, nothing fits into features.max_gb ({plan.max_gb:g} GB)"
    times = _nothing(plan).multiply_adds / plan.chosen.multiply_adds
    return f"{times:.1f} times fewer multiply-adds than with nothing kept"


def _last(last: Checked | None) -> list[str]:
    if last is None:
        return []
    done, foretold = last.actual, last.estimated
    text = f"  Last features stage: computed {done.computed:,}, reused {done.reused:,}, {amount(done.bytes, 'B')}, "
    text += duration(done.seconds)
    if foretold is None:
        return [f"{text}; nothing was foretold."]
    return [
        f"{text};",
        f"  foretold: computed {foretold.computed:,}, reused {foretold.reused:,}, {amount(foretold.bytes, 'B')}, "
        f"{duration(foretold.seconds)}.",
    ]


def _training(option: Option) -> int:
    return option.multiply_adds - option.features


def _seconds(forecast: Forecast) -> float:
    return forecast.work.seconds + _training(forecast.plan.chosen) / forecast.rate.per_second


def _cost(multiply_adds: int, rate: Rate) -> list[str]:
    return [_giga(multiply_adds), duration(multiply_adds / rate.per_second) if multiply_adds else ""]


def _giga(multiply_adds: int) -> str:
    giga = multiply_adds / 10**9
    if 0 < giga < 0.001:
        return "<0.001"
    return f"{giga:,.0f}" if giga >= 100 else f"{giga:.3g}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: 0.3 s, 12 s, 3.4 min, 2.1 h."""
    for limit, size, unit in ((100, 1, "s"), (6000, 60, "min")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"


def _table(heading: list[str], rows: list[list[str]], left: int) -> list[str]:
    """Aligned lines, so many columns to the left and the others to the right."""
    table = [heading, *rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(heading))]
    lines = []
    for line in table:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return [lines[0], "  " + "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]]
