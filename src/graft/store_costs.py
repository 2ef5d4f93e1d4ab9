"""What the rows of a store cost when they were computed, for those who find them there."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from graft.storage import ArtifactError, read_json
from graft.store_segments import write_partial

COST = "cost.json"  # beside a space's segments


@dataclass(frozen=True)
class Cost:
    """What rows cost.

    Attributes:
        seconds: of all rows together, from the pixels on.
        rows: whose cost is known: more than the space holds where some were evicted, fewer where a process died.
    """

    seconds: float
    rows: int

    def of(self, rows: int) -> float:
        """Seconds that so many rows cost on average."""
        return self.seconds / self.rows * rows


def read_cost(folder: Path) -> Cost | None:
    """What the rows of a space cost; None where nobody kept it, or what was kept is damaged."""
    try:
        kept = read_json(folder / COST)
        cost = Cost(float(kept["seconds"]), int(kept["rows"]))
    except (ArtifactError, KeyError, TypeError, ValueError):
        return None
    return cost if cost.seconds >= 0 and cost.rows > 0 else None


def add_cost(folder: Path, seconds: float, rows: int) -> None:
    """Count the cost of further rows; in a block of Space.locked, so that no other process counts meanwhile."""
    before = read_cost(folder) or Cost(0.0, 0)
    text = json.dumps(asdict(Cost(before.seconds + seconds, before.rows + rows)), indent=2) + "\n"
    with suppress(FileNotFoundError):  # the folder may be deleted at any time
        os.replace(write_partial(folder / f"{uuid.uuid4().hex}.json", [text.encode()]), folder / COST)
