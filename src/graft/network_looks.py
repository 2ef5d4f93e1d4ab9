"""The figures of the look inside a network: its first filters, its feature maps, and where its answers come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graft import activations, explanations, tiles
from graft.comparison_sections import Inspect
from graft.looks import Look, Tile

if TYPE_CHECKING:
    import keras

FILTERS, CHANNELS = 64, 8  # at most shown
FILTER_SIDE, MAP_SIDE, IMAGE_SIDE = 42, 64, 96  # px
NEARLY_ALL = 0.995  # of the values of a row of feature maps, which a few odd pixels at the border shall not darken
LEAST_LOSS = 0.05  # of probability, from which on an occlusion map has its full strength

Apply = Callable[[np.ndarray], np.ndarray]  # images (n, size, size, 3) to probabilities (n, classes)


@dataclass(frozen=True)
class Sample:
    """Some images and what is known of them.

    Attributes:
        images: RGB 0..255 of shape (n, size, size, 3).
        labels: class numbers of shape (n,).
        sources: where each comes from, for people.
        classes: names by class number.
    """

    images: np.ndarray
    labels: np.ndarray
    sources: Sequence[str]
    classes: Sequence[str]


def network_looks(network: keras.Model, apply: Apply, sample: Sample, settings: Inspect) -> list[Look]:
    """First filters, feature maps and explanations of a network.

    Args:
        network: RGB 0..255 to probabilities.
        apply: the same, calibrated.
        sample: of which `settings.images` are shown, chosen by choose_images.
        settings: how many, and the stride of the occlusion.
    """
    probabilities = explanations.in_batches(apply, sample.images)
    shown = choose_images(sample.labels, probabilities.argmax(axis=1), settings.images)
    looks = [filters_look(network), feature_maps_look(network, sample, int(shown[0]))]
    found = explanations.last_map(network)
    if found and min(found[1:]) >= explanations.LEAST_SIDE:
        looks.append(grad_cam_look(network, sample, shown, probabilities, found))
    else:
        looks.append(occlusion_look(apply, sample, shown, probabilities, settings.occlusion_stride, found))
    return [look for look in looks if look is not None]


def choose_images(labels: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """So many positions, right ones before wrong ones, half of them wrong where there are as many.

    Of each kind the classes follow each other in turn, and the images of a class in their order.
    """
    right = _in_turn(labels, np.flatnonzero(predicted == labels))
    wrong = _in_turn(labels, np.flatnonzero(predicted != labels))
    many = max(min(len(wrong), count // 2), count - len(right))
    return np.concatenate([right[: count - min(many, len(wrong))], wrong[:many]])


def _in_turn(labels: np.ndarray, positions: np.ndarray) -> np.ndarray:
    own = labels[positions]
    turn = np.array([np.count_nonzero(own[:place] == label) for place, label in enumerate(own)], int)
    return positions[np.lexsort((own, turn))]


def filters_look(network: keras.Model) -> Look | None:
    """The kernels of the first convolution; None where there is none."""
    filters = activations.first_filters(network)
    if filters is None:
        return None
    pictures = [
        Tile(tiles.to_png(tiles.fitted(tiles.stretched(kernel), FILTER_SIDE)), "", f"{filters.layer}, filter {number}")
        for number, kernel in enumerate(filters.kernels[:FILTERS])
    ]
    count, height, width, channels = filters.kernels.shape
    colours = "in the colours of the image that it answers to" if channels == 3 else "as the mean over what it sees"
    which = f"All {count}" if count <= FILTERS else f"The first {FILTERS} of the {count}"
    text = (
        f"{which} filters of {filters.layer}, the first convolution, {height} x {width} px each, {colours}; "
        "dark is each filter's lowest weight, bright its highest."
    )
    return Look("filters", "First-layer filters", text, pictures)


def feature_maps_look(network: keras.Model, sample: Sample, row: int) -> Look | None:
    """The strongest channels of one image of the sample at each resolution; None where there are no maps."""
    found = activations.feature_maps(network, sample.images[row])
    if not found:
        return None
    columns = min(CHANNELS, *(maps.maps.shape[-1] for maps in found))
    pictures = [tile for maps in found for tile in _map_tiles(maps, columns)]
    name = sample.classes[sample.labels[row]]
    text = (
        f"What the network makes of one image of class {name}, the first one below, from its first layers to its last: "
        f"at each resolution the {columns} channels that differ most from place to place (of 1 x 1 maps the highest); "
        "dark is the lowest of a row, bright the highest."
    )
    return Look("feature_maps", "Feature maps by block", text, pictures, columns)


def _map_tiles(found: activations.Maps, columns: int) -> list[Tile]:
    height, width, _ = found.maps.shape
    mean, deviation = found.maps.mean(axis=(0, 1)), found.maps.std(axis=(0, 1))
    strongest = np.lexsort((-mean, -deviation))[:columns]
    maps = found.maps[..., strongest]
    low, high = float(maps.min()), float(np.quantile(maps, NEARLY_ALL))
    shares = np.clip((maps - low) / (high - low), 0, 1) if high > low else np.zeros_like(maps)
    captions = [f"{height} x {width} px", *[""] * (columns - 1)]
    return [
        Tile(
            tiles.to_png(tiles.fitted(tiles.heat(shares[..., place]), MAP_SIDE)),
            captions[place],
            f"{found.layer}, channel {channel}",
        )
        for place, channel in enumerate(strongest)
    ]


def grad_cam_look(
    network: keras.Model, sample: Sample, shown: np.ndarray, probabilities: np.ndarray, last: tuple[str, int, int]
) -> Look:
    """Grad-CAM of the predicted classes at the last map.

    Args:
        network: RGB 0..255 to probabilities.
        sample: the images.
        shown: positions in it, of shape (m,).
        probabilities: of the whole sample, of shape (n, classes).
        last: the layer, and height and width of its map.
    """
    images, predicted = sample.images[shown], probabilities[shown].argmax(axis=1)
    maps = explanations.grad_cam(network, images, predicted, last[0])
    weights = explanations.upsampled(maps, images.shape[1])
    strongest = weights.max(axis=(1, 2), keepdims=True)
    shares = np.divide(weights, strongest, out=np.zeros_like(weights), where=strongest > 0)
    captions = [f"{100 * row.max():.0f} %" for row in probabilities[shown]]
    text = (
        f"Right beside each image, where the maps of {last[0]}, the last ones, speak for the predicted class "
        f"(Selvaraju et al. 2017): the brighter, the more. They have {last[1]} x {last[2]} places, so that the outline "
        "is coarse; each image is scaled by itself."
    )
    title = "What the prediction looks at (Grad-CAM)"
    return Look("grad_cam", title, text, _explained(sample, shown, predicted, shares, captions))


def occlusion_look(
    apply: Apply,
    sample: Sample,
    shown: np.ndarray,
    probabilities: np.ndarray,
    stride: int,
    last: tuple[str, int, int] | None,
) -> Look:
    """What hiding parts of the images costs the predicted classes.

    Args:
        apply: images to probabilities.
        sample: the images.
        shown: positions in it, of shape (m,).
        probabilities: of the whole sample, of shape (n, classes).
        stride: px.
        last: the layer before the pooling, and height and width of its map; None where the network has none.
    """
    images, predicted = sample.images[shown], probabilities[shown].argmax(axis=1)
    lost = explanations.occlusion(apply, images, predicted, stride)
    most = lost.max(axis=(1, 2), keepdims=True)
    shares = np.clip(lost / np.maximum(most, LEAST_LOSS), 0, 1)
    captions = [
        f"{100 * row.max():.0f} %, hidden {100 * (row.max() - loss):.0f} %"
        for row, loss in zip(probabilities[shown], np.maximum(most, 0).ravel(), strict=True)
    ]
    side = explanations.LEAST_SIDE
    reason = (
        f"The network's last map, of {last[0]}, has {last[1]} x {last[2]} places: Grad-CAM needs {side} x {side} to "
        "tell where the evidence is."
        if last
        else "The network has no maps, which Grad-CAM needs."
    )
    text = (
        f"{reason} Instead, a patch of {2 * stride} px in the image's mean colour hid one part after the other (Zeiler "
        "& Fergus 2014); bright is where that cost the predicted class most of its probability, which is stated with "
        "nothing hidden and, on average, with the brightest place hidden."
    )
    title = "What the prediction depends on (occlusion)"
    return Look("occlusion", title, text, _explained(sample, shown, predicted, shares, captions))


def _explained(
    sample: Sample, shown: np.ndarray, predicted: np.ndarray, shares: np.ndarray, captions: Sequence[str]
) -> list[Tile]:
    """Each shown image beside itself under its map from 0 to 1."""
    pictures = []
    for row, guess, weights, caption in zip(shown, predicted, shares, captions, strict=True):
        image = sample.images[row]
        left, right = (tiles.fitted(picture, IMAGE_SIDE) for picture in (image, tiles.overlay(image, weights)))
        names = sample.classes[sample.labels[row]], sample.classes[guess]
        pictures.append(Tile(tiles.to_png(tiles.beside(left, right)), caption, sample.sources[row], *names))
    return pictures
