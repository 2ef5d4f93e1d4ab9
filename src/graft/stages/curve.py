"""Accuracy against labelled images per class, of all that is trained on one base."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from graft import runtime
from graft.artifacts import read_manifest
from graft.curve_fits import Fit, Fitted, Subset, run_fits, start_session
from graft.extraction import svm_vectors
from graft.feature_sets import IMAGE, read_features, read_view_pixels, with_vectors
from graft.finetuning import fine_tune
from graft.finetuning_memory import settled_finetuning
from graft.inference import apply_model
from graft.params import Params, load_params, row
from graft.sections import Backbone
from graft.stages import PARAMS_FILE, ParamsFile, run_key_of, start
from graft.svm import fit_svm
from graft.svm_layers import layers_json
from graft.unfinished import unfinished
from graft.weights import load_base

PACKAGES = ("tensorflow", "keras", "scikit-learn", "numpy")  # that decide the last bits of a fit


def run(
    params: Params,
    name: str,
    *,
    prepared: Path,
    augmented: Path,
    features: Path,
    source: Path,
    out: Path,
    work: Path,
    vectors: Path | None = None,
) -> None:
    """Fit head, fine-tuned base and SVM of one backbone at every size, and write their predictions."""
    from graft.resources import named_memory_errors

    row(params.backbones, name, "backbones")
    runtime.configure(params.seed)
    manifest = read_manifest(prepared)
    feature_set = read_features(features, manifest, read_view_pixels(prepared, augmented, manifest))
    feature_set = with_vectors(feature_set, vectors, manifest, layers_json(params.backbones[name].features))
    params = settled_finetuning(params, name, source, feature_set)
    backbone = params.backbones[name]
    phases = ("frozen", "finetune") if backbone.finetune.unfrozen_epochs else ("frozen",)
    with named_memory_errors(params, "curve", name):
        run_fits(
            name,
            (*phases, "svm"),
            manifest,
            feature_set,
            partial(_fit, params, backbone, source),
            curve=params.curve,
            seed=params.seed,
            work=work,
            out=out,
        )


def _fit(params: Params, backbone: Backbone, source: Path, which: Fit, subset: Subset) -> Fitted | None:
    start_session(which.seed)
    if which.kind == "svm":
        return _fit_svm(params, backbone, source, which.seed, subset)
    if which.kind == "frozen":
        head_alone = backbone.finetune.model_copy(update={"unfrozen_epochs": 0})
        backbone = backbone.model_copy(update={"finetune": head_alone})
    return _fit_network(params, backbone, source, which.seed, subset)


def _fit_network(params: Params, backbone: Backbone, source: Path, seed: int, subset: Subset) -> Fitted:
    """As the finetune stage trains it; its base is loaded anew, since training changes it in place."""
    features = subset.repeated()
    trained = fine_tune(
        load_base(source),
        backbone,
        subset.manifest,
        features,
        image_size=params.data.image_size,
        class_weights=params.train.class_weights,
        seed=seed,
        publish=lambda epoch, phase, metrics: None,
    )
    model, inputs = trained.shortcut or (trained.model, features.stored[IMAGE])
    batches = apply_model(model, inputs, subset.held_out, backbone.features.batch_size)
    probabilities = np.concatenate([batch for (batch,) in batches])
    return Fitted(probabilities, len(trained.history), sum(trained.seconds.values()))


def _fit_svm(params: Params, backbone: Backbone, source: Path, seed: int, subset: Subset) -> Fitted | None:
    """As the svm stage fits it, in fewer folds where a class has fewer images; None where one has fewer than two."""
    group_of = subset.manifest.rows.set_index("image_id")["group"]
    labels = subset.features.labels[subset.train]
    groups = group_of.loc[subset.features.index["image_id"].iloc[subset.train]].to_numpy()
    images = pd.DataFrame({"label": labels, "group": groups}).drop_duplicates()["label"].value_counts()
    folds = min(backbone.svm.folds, int(images.min()))
    if folds < 2:
        return None
    started = time.perf_counter()
    train, held_out = (
        svm_vectors(subset.features, rows, source, backbone, seed) for rows in (subset.train, subset.held_out)
    )
    settings = backbone.svm.model_copy(update={"folds": folds})
    machine = fit_svm(train, labels, groups, settings, seed, params.train.class_weights)
    seconds = time.perf_counter() - started
    return Fitted(machine.model.predict_proba(held_out), 0, seconds)


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    augmented: Annotated[Path, typer.Option()],
    features: Annotated[Path, typer.Option()],
    source: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    vectors: Annotated[Path | None, typer.Option()] = None,
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the curve stage of one backbone."""
    from graft.preflight import check_before_training

    loaded = load_params(params)
    check_before_training(loaded)
    folders = {"prepared": prepared, "augmented": augmented, "features": features, "source": source, "out": out}
    with unfinished(run_key_of("curve", name), PACKAGES) as work:
        run(loaded, name, **folders, work=work, vectors=vectors)


if __name__ == "__main__":
    start(main)
