"""Accuracy against labelled images per class, of a network trained from scratch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from graft import runtime
from graft.artifacts import read_manifest, read_views
from graft.baselines import settled_baseline, train_baseline
from graft.batches import Rows
from graft.curve_fits import Fit, Fitted, Subset, run_fits, start_session
from graft.feature_sets import IMAGE, FeatureSet, feature_index, read_view_pixels
from graft.inference import apply_model
from graft.params import Params, load_params, row
from graft.sections import Baseline
from graft.stages import PARAMS_FILE, ParamsFile, run_key_of, start
from graft.training import class_weights
from graft.unfinished import unfinished

PACKAGES = ("tensorflow", "keras", "numpy")  # that decide the last bits of a fit


def run(params: Params, name: str, *, prepared: Path, augmented: Path, out: Path, work: Path) -> None:
    """Train one baseline at every size, and write its predictions."""
    from graft.resources import named_memory_errors

    row(params.baselines, name, "baselines")
    runtime.configure(params.seed)
    manifest = read_manifest(prepared)
    params = settled_baseline(params, name, len(manifest.positions("train")), len(manifest.classes))
    baseline = params.baselines[name]
    pixels = {IMAGE: read_view_pixels(prepared, augmented, manifest)}
    with named_memory_errors(params, "curve_baseline", name):
        run_fits(
            name,
            ("baseline",),
            manifest,
            FeatureSet(feature_index(manifest, read_views(augmented, manifest)), pixels, manifest.classes),
            partial(_fit, params, baseline),
            curve=params.curve,
            seed=params.seed,
            work=work,
            out=out,
        )


def _fit(params: Params, baseline: Baseline, which: Fit, subset: Subset) -> Fitted:
    """As the baseline stage trains it."""
    start_session(which.seed)
    rows = subset.repeated()
    pixels, validation = rows.stored[IMAGE], rows.positions("validation")
    views = [rows.positions("train", view) for view in range(rows.views)]
    labels = rows.labels[views[0]]
    trained = train_baseline(
        baseline,
        Rows(pixels, views, labels, class_weights(labels, params.train.class_weights)),
        Rows(pixels, [validation], rows.labels[validation]),
        classes=len(rows.classes),
        seed=which.seed,
        publish=lambda epoch, phase, metrics: None,
    )
    batches = apply_model(trained.model, pixels, subset.held_out, baseline.train.rows_per_step)
    probabilities = np.concatenate([batch for (batch,) in batches])
    return Fitted(probabilities, len(trained.history), sum(trained.seconds.values()))


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    augmented: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the curve_baseline stage of one row."""
    from graft.preflight import check_before_training

    loaded = load_params(params)
    check_before_training(loaded)
    with unfinished(run_key_of("curve_baseline", name), PACKAGES) as work:
        run(loaded, name, prepared=prepared, augmented=augmented, out=out, work=work)


if __name__ == "__main__":
    start(main)
