"""The command that shows what filters do to an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graft.errors import GraftError
from graft.params import load_params
from graft.stages import PARAMS_FILE

if TYPE_CHECKING:
    from graft.reporting.comparison import Picture
    from graft.reporting.gallery_page import Learner
    from graft.serving import Classifier

MODELS, PREPARED = Path("models"), Path("data/prepared")
MOST = 64  # learned filters


class GalleryError(GraftError):
    """There is no image to show filters on."""


def gallery(
    image: Annotated[Path | None, typer.Argument(help="An image file; the first test image if not given.")] = None,
    model: Annotated[str | None, typer.Option(help="Of models/; the champion of the leaderboard if not given.")] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("reports/gallery.html"),
) -> None:
    """Write a page on what filters do to an image: kernels made by hand, and those that a model learned."""
    from graft import predicting
    from graft.reporting.gallery_page import render_gallery
    from graft.storage import new_file

    name = model or predicting.champion(Path("reports/leaderboard.json"))
    classifier = predicting.load_model(name, MODELS)
    picture = _own(image, classifier) if image is not None else _held_out(classifier)
    learner = _learner(name, classifier, picture)
    page = render_gallery(picture, learner)
    with new_file(out) as partial:
        partial.write_text(page, encoding="utf-8", newline="\n")
    layer = learner.layer
    has = f"the {layer.count} filters of {layer.layer}" if layer else "no filters, for it has no convolution"
    typer.echo(f"{out}: kernels made by hand on {picture.words}, and of {name} {has}")


def _learner(name: str, classifier: Classifier, picture: Picture) -> Learner:
    from graft.network_filters import base_on_images, first_layer
    from graft.reporting.gallery_page import Learner
    from graft.storage import read_json

    network, base = classifier.network, None
    if network is None:
        base = str(read_json(MODELS / name / "base.json")["backbone"])
        network = base_on_images(MODELS / name, MODELS / "source" / base)
    probabilities = classifier.probabilities(picture.pixels[None])[0]
    best = int(probabilities.argmax())
    layer = first_layer(network, picture.pixels, MOST)
    return Learner(name, base, layer, classifier.classes[best], float(probabilities[best]))


def _own(image: Path, classifier: Classifier) -> Picture:
    """A person's image as the model sees it.

    Raises:
        GalleryError: it cannot be read.
    """
    from graft.images import FORMATS
    from graft.predicting import predict
    from graft.reporting.comparison import Picture

    limits = load_params(PARAMS_FILE).serve
    (answer,) = predict(classifier, [image], limits)
    if answer.reason:
        raise GalleryError(f"{image} must be an image file ({', '.join(FORMATS)}), received: {answer.reason}")
    return Picture(classifier.pixels(image.read_bytes(), max_pixels=limits.max_pixels), f"the image {image.name}")


def _held_out(classifier: Classifier) -> Picture:
    """The first test image, of a data set without any the first validation image."""
    from graft.artifacts import read_images, read_manifest
    from graft.reporting.filters import first_picture

    manifest = read_manifest(PREPARED)
    split = "test" if len(manifest.positions("test")) else "validation"
    picture = first_picture(manifest, read_images(PREPARED, manifest.rows), split)
    return replace(picture, pixels=classifier.resized(picture.pixels))
