"""Networks from scratch: described as data, trained on the target's own images alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graft.batch_sizes import settled
from graft.checkpoints import NOTHING_KEPT, Checkpoints
from graft.errors import GraftError
from graft.keras_configs import ALLOWED
from graft.networks import image_input, resized
from graft.numpy_cnn.memory import training_memory
from graft.numpy_cnn.rows import network_of
from graft.numpy_cnn.training import fit_network
from graft.sections import Baseline
from graft.training import Phase, Publish, Rows, Trained, fit_phase
from graft.training_memory import TrainingMemory, network_memory

if TYPE_CHECKING:
    import keras

    from graft.params import Params


class NetworkError(GraftError):
    """A row of `baselines` describes layers that Keras cannot build."""


def build_cnn(baseline: Baseline, image_size: int, classes: int) -> keras.Model:
    """A network from a row's list of layers, with a softmax over the classes added at its end.

    Also what `engine: numpy` trains is saved as this network, so that whatever takes one takes the other.

    Raises:
        NetworkError: a layer is not in keras.layers or refuses its arguments or its input; the item is named.
        EngineError: engine numpy does not have it.
    """
    import keras

    images = image_input(image_size)
    x = resized(images, image_size, baseline.input_size)
    if baseline.channels == 1:
        x = keras.ops.image.rgb_to_grayscale(x)
    for index, item in enumerate(baseline.layers):
        ((name, arguments),) = item.items()
        layer = getattr(keras.layers, name, None)
        if not isinstance(layer, type) or layer.__name__ not in ALLOWED["keras.layers"]:
            raise NetworkError(f"layers[{index}] must name a class of keras.layers, received {name!r}")
        try:
            x = layer(**arguments)(x)
        except (TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise NetworkError(f"layers[{index}] {name} {arguments} cannot be built: {reason}") from error
    if len(x.shape) != 2:
        raise NetworkError(f"layers must end in a vector per image (add Flatten), received shape {tuple(x.shape)}")
    if baseline.engine == "numpy":
        network_of(baseline, image_size, classes, seed=0)  # refuses what it does not have
    return keras.Model(images, keras.layers.Dense(classes, activation="softmax", name="classes")(x), name="classifier")


def settled_baseline(params: Params, name: str, images: int, classes: int) -> Params:
    """The params with a number in place of a baseline's `train.batch_size: auto`, as batch_sizes.settled.

    Args:
        params: of the run.
        name: of the baseline.
        images: that are trained on, each in augment.views views.
        classes: number of classes.
    """
    row = params.baselines[name]
    return settled(
        params,
        "train",
        name,
        images=images,
        estimates=lambda: [baseline_memory(row, params.data.image_size, classes, images * params.augment.views)],
    )


def baseline_memory(baseline: Baseline, image_size: int, classes: int, images: int) -> TrainingMemory:
    """Of a row's training on so many images, every view counted."""
    if baseline.engine == "numpy":
        return training_memory(network_of(baseline, image_size, classes, seed=0), images)
    return network_memory(build_cnn(baseline, image_size, classes), baseline.train.optimizer, images)


def train_baseline(
    baseline: Baseline,
    train: Rows,
    validation: Rows,
    *,
    classes: int,
    seed: int,
    publish: Publish,
    checkpoints: Checkpoints = NOTHING_KEPT,
) -> Trained:
    """Build a row's network and train it on pixels in one phase, by the row's engine.

    Args:
        baseline: layers and optimisation.
        train: pixels (n, size, size, 3) of every view of the training images.
        validation: pixels of the validation images.
        classes: number of classes.
        seed: of the order of the batches; with engine numpy, of first weights and dropout, too.
        publish: called after each epoch.
        checkpoints: of this training; where it was interrupted, it goes on from them.
    """
    image_size = train.inputs.row_shape[0]
    model = build_cnn(baseline, image_size, classes)
    settings = baseline.train
    fit: dict[str, Any] = {
        "classes": classes,
        "settings": settings,
        "phase": Phase("scratch", settings.epochs, settings.learning_rate),
        "seed": seed,
        "publish": publish,
        "checkpoints": checkpoints.at("baseline", {"row": baseline.model_dump(mode="json")}),
    }
    if baseline.engine == "numpy":
        network = network_of(baseline, image_size, classes, seed)
        outcome = fit_network(network, train, validation, **fit)
        model.set_weights(network.get_weights())
    else:
        outcome = fit_phase(model, train, validation, first_epoch=1, **fit)
    return Trained(model, outcome.history, {"scratch": outcome.seconds})
