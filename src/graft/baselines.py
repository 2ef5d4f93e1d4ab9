"""Networks trained from scratch on the target's own images alone."""

from __future__ import annotations

from graft.networks import build_cnn
from graft.params import Baseline
from graft.training import Phase, Publish, Rows, Trained, fit_phase


def train_baseline(
    baseline: Baseline, train: Rows, validation: Rows, *, classes: int, seed: int, publish: Publish
) -> Trained:
    """Build a row's network and train it on pixels in one phase.

    Args:
        baseline: layers and optimisation.
        train: pixels (n, size, size, 3) of every view of the training images.
        validation: pixels of the validation images.
        classes: number of classes.
        seed: of the order of the batches.
        publish: called after each epoch.
    """
    model = build_cnn(baseline, train.inputs.row_shape[0], classes)
    settings = baseline.train
    outcome = fit_phase(
        model,
        train,
        validation,
        classes=classes,
        settings=settings,
        phase=Phase("scratch", settings.epochs, settings.learning_rate),
        first_epoch=1,
        seed=seed,
        publish=publish,
    )
    return Trained(model, outcome.history, {"scratch": outcome.seconds})
