"""What the next run will do with each frozen base: examined before it starts, and told in tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graft import planning, preflight, resource_checks
from graft.counting import Counts, count_images
from graft.errors import GraftError
from graft.feature_sets import IMAGE, SVM, TOP
from graft.forecasts import Checked, Rate, Work, read_actual, read_rate, record_estimate, record_rate
from graft.params import Params, ParamsError
from graft.plan_tables import footer, header, page
from graft.planning import Plan
from graft.reuse import Places, StoredViews, remaining
from graft.sections import Backbone

if TYPE_CHECKING:
    import keras

CALIBRATION_SECONDS = 1.0
CALIBRATION_BATCHES = 1000  # at most; a second is over earlier with all but the smallest bases


@dataclass(frozen=True)
class Forecast:
    """What the next run will do with one backbone.

    Attributes:
        name: of the row.
        row: of params.yaml.
        plan: what is kept, and the other options.
        work: of the features stage.
        rate: of this machine.
        last: the features stage before, if there was one.
    """

    name: str
    row: Backbone
    plan: Plan
    work: Work
    rate: Rate
    last: Checked | None


def explain(params: Params, places: Places) -> Iterator[str]:
    """The pages of the plan: what is common, each backbone as soon as it is examined, and the sums.

    Raises:
        GraftError: the params cannot be run with; what listing the data alone can show comes first.
    """
    from graft import runtime

    preflight.check_data(params)
    counts = count_images(params, places.prepared, places.lock)
    views = StoredViews(params, places, counts)
    yield header(params, counts, views.unasked)
    runtime.configure(params.seed)
    forecasts = []
    for name in params.backbones:
        try:
            forecasts.append(forecast(params, name, counts, views))
        except GraftError as error:
            raise ParamsError(f"backbones.{name}: {error}") from error
        yield page(forecasts[-1])
    yield footer(params, forecasts, views.store.used_bytes(), places.store)
    yield resource_checks.describe(params, counts)


def forecast(params: Params, name: str, counts: Counts, views: StoredViews) -> Forecast:
    """Examine one backbone, and record what is foretold of its features stage.

    Raises:
        GraftError: the base cannot be built, cut or counted.
    """
    from graft import backbones, costs, vector_plans

    row, size = params.backbones[name], params.data.image_size
    base = backbones.build_base(row.base)
    segments = costs.segments(base, row.features.cuts, row.features.pooling)
    images = {"train": counts.train, "validation": counts.validation, "test": counts.test}
    plan = planning.make_plan(params.features, row, segments, **images, views=params.augment.views)
    plan = vector_plans.with_vectors(plan, base, row)
    rate = read_rate(name, row) or calibrate(name, row, base, size, segments)
    missing = views.missing(name, plan)
    lacking = np.any(list(missing.values()), axis=0) if missing else np.empty(0, bool)
    computed, reused = int(lacking.sum()), int((~lacking).sum())
    multiply_adds, kept = 0, plan.output_bytes
    if plan.vectors and plan.vectors.kept:
        multiply_adds = int(missing.pop(SVM).sum()) * plan.vectors.multiply_adds
        kept += plan.vectors.output_bytes
    multiply_adds += remaining(segments, missing, exact=params.features.storage == "float32")
    work = Work(computed, reused, multiply_adds, kept, multiply_adds / rate.per_second)
    record_estimate(name, vector_plans.kept_json(plan), work)
    return Forecast(name, row, plan, work, rate, read_actual(name))


def calibrate(name: str, row: Backbone, base: keras.Model, image_size: int, segments: planning.Segments) -> Rate:
    """The rate of a base on this machine, by a second of frozen passes over noise; random weights are as fast."""
    from graft.extraction import row_pass
    from graft.inference import apply_model

    print(f"plan: timing {name}", file=sys.stderr, flush=True)
    whole = row_pass(base, row, image_size, IMAGE, [TOP])
    size = row.features.batch_size
    noise = np.random.default_rng(0).integers(0, 256, (size, image_size, image_size, 3), np.uint8)
    batches = apply_model(whole, noise, np.tile(np.arange(size), 1 + CALIBRATION_BATCHES), size)
    next(batches)  # traces the graph
    started, passed, seconds = time.perf_counter(), 0, 0.0
    while passed < CALIBRATION_BATCHES and seconds < CALIBRATION_SECONDS:
        next(batches)
        passed, seconds = passed + 1, time.perf_counter() - started
    rows = passed * size
    rate = Rate(rows * segments.between(IMAGE, TOP), seconds, rows, "calibration")
    record_rate(name, row, rate)
    return rate
