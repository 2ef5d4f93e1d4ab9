"""One page on what filters do to an image: kernels made by hand, and those that a model learned."""

from __future__ import annotations

from dataclasses import dataclass

from graft.learned_filters import FirstLayer
from graft.reporting.comparison import Picture
from graft.reporting.filters import kernel_panels, learned_panels
from graft.reporting.galleries import thumbnail
from graft.reporting.templates import page_environment
from graft.reporting.text import percent
from graft.tiles import to_png


@dataclass(frozen=True)
class Learner:
    """The model whose filters are shown.

    Attributes:
        model: its name.
        base: the backbone that an SVM stands on; None for a network.
        layer: its first convolution; None where it has none.
        predicted: the class that it takes the image for.
        probability: of that class.
    """

    model: str
    base: str | None
    layer: FirstLayer | None
    predicted: str
    probability: float


def render_gallery(picture: Picture, learner: Learner) -> str:
    """The page as HTML, which holds all it shows and has no script."""
    environment = page_environment()
    return environment.get_template("gallery.html.j2").render(
        picture=picture,
        thumbnail=to_png(thumbnail(picture.pixels)),
        kernels=kernel_panels(picture.pixels),
        model=learner.model,
        base=learner.base,
        layer=learner.layer,
        learned=learned_panels(learner.layer) if learner.layer else [],
        predicted=learner.predicted,
        confidence=percent(learner.probability).replace(" ", "\u00a0"),
    )
