"""How large a base's source training is: images, classes and, estimated as in training_memory.py, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graft import networks
from graft.batch_sizes import settled
from graft.folders import tally_folder
from graft.sections import Backbone, Pretrain
from graft.training_memory import TrainingMemory, network_memory

if TYPE_CHECKING:
    import keras

    from graft.params import Params


def source_counts(settings: Pretrain) -> tuple[int, int]:
    """Images and classes of the source data set, as listed: unreadable files are not known yet."""
    if settings.source == "glyphs":
        from graft.glyphs import GLYPH_CLASSES

        return settings.images_per_class * len(GLYPH_CLASSES), len(GLYPH_CLASSES)
    tally = tally_folder(settings.path)
    per_class = {label: 0 for _, label in tally}
    for (_, label), images in tally.items():
        per_class[label] += images
    return sum(min(images, settings.images_per_class) for images in per_class.values()), len(per_class)


def pretraining_memory(base: keras.Model, row: Backbone, settings: Pretrain) -> TrainingMemory:
    """Of the base under a softmax over the source classes."""
    images, classes = source_counts(settings)
    model = networks.build_classifier(
        base,
        networks.build_head(base.output_shape[-1], classes, dropout=0.0),
        application=row.base.application,
        input_size=row.base.input_size,
        image_size=settings.image_size,
        pooling="avg",
    )
    return network_memory(model, row.pretrain.optimizer, images)


def settled_pretraining(params: Params, name: str) -> Params:
    """The params with a number in place of a backbone's `pretrain.batch_size: auto`, as batch_sizes.settled."""
    from graft.backbones import build_base

    row, settings = params.backbones[name], params.pretrain
    if row.base.weights != "source":
        return params
    return settled(
        params,
        "pretrain",
        name,
        images=round(source_counts(settings)[0] * (1 - settings.validation)),
        estimates=lambda: [pretraining_memory(build_base(row.base), row, settings)],
    )
