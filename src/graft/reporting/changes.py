"""What changed against another revision, as Markdown for a pull request; the differences themselves are DVC's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.errors import GraftError
from graft.reporting.markdown import escaped, table
from graft.reporting.text import MINUS, percent, points

METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "log_loss": "log loss"}
SPLITS = {"val": "validation", "test": "test"}  # by the prefix of their metrics
UNREAD = re.compile("failed to load .*'workspace'")  # DVC compares what is left, as if the rest had been removed
LONGEST = 60  # signs of a parameter's value that are shown


class ChangesError(GraftError):
    """There is nothing to compare with."""


@dataclass(frozen=True)
class Change:
    """One metric of one model; None where it was not measured."""

    model: str
    metric: str
    old: float | None
    new: float | None

    @property
    def split(self) -> str:
        """Prefix of the split, as in SPLITS."""
        return self.metric.partition("_")[0]


def describe_changes(base: str, root: Path, leaderboard: str) -> str:
    """The change of champion, metrics and params in the working tree against a revision.

    Args:
        base: a revision of Git.
        root: top folder of the project.
        leaderboard: path of leaderboard.json below root.

    Raises:
        ChangesError: this is no Git repository, it has no such revision, DVC fails, there are no metrics, or a
            leaderboard is damaged, as by a merge with conflicts.
    """
    commit = _commit(base, root)
    metrics = _dvc(root, "metrics", "diff", "--all", "--json", commit)
    if not metrics:
        raise ChangesError(f"neither {base} nor the working tree has metrics: `dvc repro` makes them, Git keeps them")
    changes = list(_changes(metrics))
    params = _dvc(root, "params", "diff", "--json", commit)
    old, new = _old_leaderboard(root, commit, leaderboard), _read_leaderboard(root / leaderboard)
    moved = _moved(changes, old, new)
    headline = _headline(old, new)
    parts = [f"## Changes against {escaped(base)} ({commit[:7]})", headline]
    if not moved and not params and old == new:
        return "\n\n".join([*parts, "Nothing changed: metrics and parameters are as they were."]) + "\n"
    parts += ["### Metrics", moved or "No metric changed (those of changed parameters do after `dvc repro`)."]
    parts += ["### Parameters", _params_table(params) or "No parameter changed."]
    return "\n\n".join(parts) + "\n"


def _commit(base: str, root: Path) -> str:
    if _git(root, "rev-parse", "--is-inside-work-tree") is None:
        raise ChangesError(f"{root} is in no Git repository, so there is no revision to compare with")
    commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    if commit is None:
        raise ChangesError(f"Git has no revision {base!r} here; name a branch, tag or commit by --base")
    return commit.strip()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _dvc(root: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode or UNREAD.search(done.stderr):
        raise ChangesError(f"`dvc {' '.join(arguments)}` in {root} failed: {done.stderr.strip()}")
    content: dict[str, Any] = json.loads(done.stdout or "{}")
    return content


def _changes(diff: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[Change]:
    """The main metrics by model, whose name the files of its splits have."""
    found = {(Path(path).stem, metric): ends for path, metrics in diff.items() for metric, ends in metrics.items()}
    for model in sorted({model for model, _ in found}):
        for metric in (f"{prefix}_{metric}" for prefix in SPLITS for metric in METRICS):
            if (model, metric) in found:
                yield Change(model, metric, found[model, metric]["old"], found[model, metric]["new"])


Rows = Mapping[str, Mapping[str, Any]]  # of a leaderboard, by model, the champion first


def _old_leaderboard(root: Path, commit: str, path: str) -> Rows:
    return _rows(_git(root, "show", f"{commit}:./{path}") or "[]", f"{path} of revision {commit[:7]}")


def _read_leaderboard(path: Path) -> Rows:
    return _rows(path.read_text(encoding="utf-8") if path.exists() else "[]", str(path))


def _rows(content: str, where: str) -> Rows:
    try:
        return {row["model"]: row for row in json.loads(content)}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ChangesError(f"{where} must be a list of models, as `dvc repro` writes it: {error!r}") from None


def _headline(old: Rows, new: Rows) -> str:
    """Who leads, before and after, and what may be quoted for it."""
    before, after = next(iter(old.values()), None), next(iter(new.values()), None)
    if after is None:
        return "There is no leaderboard in the working tree; `dvc repro` makes it."
    if before is None:
        return f"Champion: **{escaped(after['model'])}**, with {_accuracies(after)}. There was none before."
    same = before["model"] == after["model"]
    named = "as before" if same else f"in place of {escaped(before['model'])}"
    figures = "; ".join(
        _from_to(before, after, prefix) for prefix in SPLITS if after.get(f"{prefix}_accuracy") is not None
    )
    return f"Champion: **{escaped(after['model'])}**, {named}. {figures[0].upper()}{figures[1:]}."


def _accuracies(row: Mapping[str, Any]) -> str:
    values = {name: row.get(f"{prefix}_accuracy") for prefix, name in SPLITS.items()}
    return " and ".join(f"{percent(value)} {name} accuracy" for name, value in values.items() if value is not None)


def _from_to(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> str:
    old, new = before.get(f"{prefix}_accuracy"), after[f"{prefix}_accuracy"]
    if old is None or old == new:
        return f"{SPLITS[prefix]} accuracy {percent(new)}"
    judged = _judged(f"{prefix}_accuracy", before, after)
    change = f"{SPLITS[prefix]} accuracy {percent(old)} → {percent(new)}, {points(new - old)} points"
    return f"{change} ({judged})" if judged else change


def _judged(metric: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    """Whether a change is more than the images' chance can explain; empty where no interval tells."""
    if old is None or new is None:
        return ""
    size = "n_test" if metric.startswith("test") else "n_validation"
    if old.get(size) != new.get(size):
        return "measured on other images"
    names = [f"{metric}{end}" for end in ("", "_low", "_high")]
    if any(row.get(name) is None for row in (old, new) for name in names):
        return ""
    (before, low, high), (after, new_low, new_high) = ([float(row[name]) for name in names] for row in (old, new))
    return "within the intervals" if low <= after <= high and new_low <= before <= new_high else "beyond the intervals"


def _moved(changes: Sequence[Change], old: Rows, new: Rows) -> str:
    """A table of the metrics that are not as they were, and the models that came or went; empty where none are."""
    gone = {side: _only(changes, side) for side in ("new", "old")}
    rows = [
        [change.model, _name(change), "" if None in (change.old, change.new) else judged, *_values(change)]
        for change in changes
        if change.old != change.new and not any(change.model in models for models in gone.values())
        for judged in [_judged(change.metric, old.get(change.model), new.get(change.model))]
    ]
    order = list(new)
    rows.sort(key=lambda row: order.index(row[0]) if row[0] in order else len(order))
    parts = [table(["model", "metric", "change is", "old", "new", "change"], rows, 3)] if rows else []
    for title, side in (("New", "new"), ("Removed", "old")):
        if gone[side]:
            named = [f"{escaped(model)} ({', '.join(said)})" for model, said in gone[side].items()]
            parts.append(f"{title}: {', '.join(named)}.")
    return "\n\n".join(parts)


def _name(change: Change) -> str:
    return f"{SPLITS[change.split]} {METRICS[change.metric.partition('_')[2]]}"


def _values(change: Change) -> list[str]:
    """Old, new and their difference; a dash where there is none."""
    share = change.metric.endswith("_accuracy")
    ends = ["–" if end is None else percent(end) if share else f"{end:.3f}" for end in (change.old, change.new)]
    if change.old is None or change.new is None:
        return [*ends, "–"]
    difference = change.new - change.old
    return [*ends, f"{points(difference)} points" if share else f"{difference:+.3f}".replace("-", MINUS)]


def _only(changes: Sequence[Change], side: str) -> dict[str, list[str]]:
    """Models all of whose metrics are of one side alone, new or old, with their accuracies there."""
    found: dict[str, list[str]] = {}
    both = {change.model for change in changes if getattr(change, "old" if side == "new" else "new") is not None}
    for change in changes:
        value = getattr(change, side)
        if change.model not in both and value is not None and change.metric.endswith("_accuracy"):
            found.setdefault(change.model, []).append(f"{SPLITS[change.split]} {percent(value)}")
    return found


def _params_table(diff: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Changed params by their dotted path; of other files than params.yaml with the file's name before it."""
    rows = [
        [key if path == "params.yaml" else f"{path}: {key}", _written(ends["old"]), _written(ends["new"])]
        for path, params in sorted(diff.items())
        for key, ends in sorted(params.items())
    ]
    return table(["parameter", "old", "new"], rows, 3) if rows else ""


def _written(value: Any) -> str:
    """A parameter's value on one line; a dash where there is none."""
    text = "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
