"""reports/data: index.html, which people look at before they train, and its statistics.csv and duplicates.csv."""

from __future__ import annotations

from pathlib import Path

from graft.reporting.data import figures, findings, pictures
from graft.reporting.data.quarantine import by_reason
from graft.reporting.data.tables import PreparedData, copies, formats, legible, statistics, summarise, usable
from graft.reporting.data.wording import abridged, amount, share
from graft.reporting.svg import inline_svg
from graft.reporting.templates import page_environment
from graft.sections import Data
from graft.storage import new_file, write_table

RESIZED = {
    "stretch": "stretched to {0} × {0} px",
    "crop": "cut to its middle square and resized to {0} × {0} px",
    "pad": "resized to {0} × {0} px with black borders to make it square",
}
DIVIDED = {
    "stratified": "Each class was divided at random",
    "group": "The images were divided at random, each group as a whole",
    "hash": "The images were divided by a hash, so that new images never move an old one",
    "predefined": "The source's own splits were kept, and one that it lacks was drawn at random",
    "kfold": "Each class was divided at random into {folds} folds, of which fold {fold}, counted from 0, validates",
}
ENLARGED = 64  # px below which an image is shown enlarged, as sharp squares instead of a blur
COPY_COLUMNS = ["leader", "source", "label", "kind", "split"]


def write_data_report(folder: Path, data: PreparedData) -> None:
    """Write index.html, statistics.csv and duplicates.csv into the folder; equal data gives equal bytes."""
    shown = legible(data)
    found = copies(shown)
    write_table(folder / "statistics.csv", statistics(usable(shown.images)))
    write_table(folder / "duplicates.csv", found[COPY_COLUMNS])
    page = render(shown, pictures.choose(shown, found))
    with new_file(folder / "index.html") as partial:
        partial.write_text(page, encoding="utf-8", newline="\n")


def render(data: PreparedData, gallery: pictures.Gallery) -> str:
    """The page as HTML.

    Args:
        data: legible.
        gallery: from pictures.choose.
    """
    environment = page_environment()
    environment.filters |= {"abridged": abridged, "amount": amount}
    environment.globals |= {"share": share}
    images = usable(data.images)
    drawings = figures.draw(images, data.counts, data.settings.image_size)
    totals = data.counts.drop(columns="label").sum().astype(int).to_dict()
    return environment.get_template("data/page.html.j2").render(
        settings=data.settings,
        treatment=_treatment(data.settings),
        images=len(images),
        findings=findings.find(data),
        counts=data.counts.to_dict("records"),
        totals=totals,
        drawings={name: inline_svg(svg, name) for name, svg in drawings.items()},
        gallery=gallery,
        strips=figures.SPLIT_CLASSES,
        small=data.settings.image_size < ENLARGED,
        classes=summarise(images, ["label"]).to_dict("records"),
        overall=summarise(images.assign(label="all"), ["label"]).to_dict("records")[0],
        quarantined=len(data.quarantine),
        reasons=by_reason(data.quarantine),
        formats=formats(images).to_dict("records"),
    )


def _treatment(settings: Data) -> str:
    resized = RESIZED[settings.resize].format(settings.image_size)
    divided = DIVIDED[settings.split].format(folds=settings.folds, fold=settings.fold)
    return f"Each image was {resized}. {divided}."
