"""What `graft plan` foretold of a features stage, and what then happened; no output is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graft.journal import project_root
from graft.sections import Backbone
from graft.storage import read_json, write_json

LEAST_SECONDS = 0.5  # a shorter pass is mostly overhead and says nothing of the next


@dataclass(frozen=True)
class Rate:
    """How fast this machine applied a base.

    Attributes:
        multiply_adds: of all rows together.
        seconds: that they took.
        rows: that passed.
        origin: `run`, of the features stage, or `calibration`, by a few batches.
    """

    multiply_adds: int
    seconds: float
    rows: int
    origin: str

    @property
    def per_second(self) -> float:
        """Multiply-adds."""
        return self.multiply_adds / self.seconds


@dataclass(frozen=True)
class Work:
    """What a features stage does, foretold or done; views of equal pixels are one.

    Attributes:
        computed: views of which at least one kept point was not in the store.
        reused: all others.
        multiply_adds: of computing them.
        bytes: of the kept activations in the outputs.
        seconds: in the frozen base, reading and writing included.
    """

    computed: int
    reused: int
    multiply_adds: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Checked:
    """The last features stage of a backbone.

    Attributes:
        estimated: what was foretold; None where nobody asked before it ran.
        actual: what it did.
    """

    estimated: Work | None
    actual: Work


def read_rate(name: str, row: Backbone) -> Rate | None:
    """The last rate recorded for a backbone, if its base and batches are still the same."""
    record = _read("rates", name)
    return Rate(**record["rate"]) if record and record["base"] == _base(row) else None


def record_rate(name: str, row: Backbone, rate: Rate) -> None:
    """Keep a rate for later forecasts, unless it was measured over too short a time."""
    if rate.seconds >= LEAST_SECONDS and rate.multiply_adds:
        write_json(_path("rates", name), {"base": _base(row), "rate": asdict(rate)})


def record_estimate(name: str, plan: Mapping[str, Any], estimated: Work) -> None:
    """Foretell the next features stage of a backbone.

    Args:
        name: of the backbone.
        plan: as planning.Plan.to_json; the forecast holds for a stage with an equal one.
        estimated: what it will do.
    """
    record = _read("plans", name) or {}
    write_json(_path("plans", name), record | {"next": {"plan": dict(plan), "estimated": asdict(estimated)}})


def record_actual(name: str, row: Backbone, plan: Mapping[str, Any], actual: Work, rate: Rate) -> Checked:
    """Keep what a features stage did beside what was foretold of it, and its rate for the next forecast.

    A forecast is used up by the first stage after it, since that changes the store.
    """
    record = _read("plans", name) or {}
    foretold = record.get("next")
    estimated = foretold["estimated"] if foretold and foretold["plan"] == plan else None
    write_json(_path("plans", name), {"last": {"estimated": estimated, "actual": asdict(actual)}})
    record_rate(name, row, rate)
    return Checked(Work(**estimated) if estimated else None, actual)


def read_actual(name: str) -> Checked | None:
    """The last features stage of a backbone, if one has run here."""
    last = (_read("plans", name) or {}).get("last")
    if not last:
        return None
    return Checked(Work(**last["estimated"]) if last["estimated"] else None, Work(**last["actual"]))


def _path(kind: str, name: str) -> Path:
    return project_root() / ".work" / kind / f"{name}.json"


def _read(kind: str, name: str) -> dict[str, Any] | None:
    path = _path(kind, name)
    return read_json(path) if path.exists() else None


def _base(row: Backbone) -> dict[str, Any]:
    """What the time of a row depends on, besides its multiply-adds."""
    return row.base.model_dump(include={"application", "input_size", "width"}) | {"batch_size": row.features.batch_size}
