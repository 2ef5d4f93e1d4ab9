"""`graft gallery`: what filters do to an image, on a page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browsers import chromium
from PIL import Image

from graft import runtime
from graft.artifacts import Manifest, write_manifest
from graft.calibration import Calibration, write_calibration
from graft.commands.galleries import GalleryError, gallery
from graft.learned_filters import FirstLayer, LearnedFilter
from graft.network_runs import save_keras_model
from graft.params import ParamsError
from graft.reporting.comparison import Picture
from graft.reporting.gallery_page import Learner, render_gallery
from graft.shards import ShardWriter
from graft.storage import ArtifactError, write_json
from graft.tiles import signed_png

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Picture(
    np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8), "test image a<b>/1.png of class ant"
)


def fake_layer(side: int = 3, channels: int = 1) -> FirstLayer:
    rng = np.random.default_rng(0)
    filters = [
        LearnedFilter(number, rng.normal(size=(side, side, channels)), signed_png(rng.uniform(-1, 1, (16, 16))))
        for number in range(9)
    ]
    return FirstLayer("conv1", 9, (16, 16), channels == 1, filters)


def learner(**changes: Any) -> Learner:
    values = {"model": "cnn", "base": None, "layer": fake_layer(), "predicted": "b&e", "probability": 0.876}
    return Learner(**values | changes)


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html[html.index("<main>") :]).split())


@pytest.mark.parametrize("layer", [fake_layer(), fake_layer(7, 3), None], ids=["grey", "colours", "none"])
def test_the_page_holds_all_it_shows(layer: FirstLayer | None) -> None:
    html = render_gallery(PICTURE, learner(layer=layer))
    assert not re.search(r"<(script|link|iframe|object)|@import|url\(|https?:", html)
    assert all(address.startswith("data:image/png;base64,") for address in re.findall(r'(?:src|href)="([^"]*)"', html))
    assert "a&lt;b&gt;/1.png" in html
    assert render_gallery(PICTURE, learner(layer=layer)) == html


def test_it_says_what_it_shows() -> None:
    seen = words(render_gallery(PICTURE, learner()))
    assert "which cnn takes for b&amp;e (87.6 %)" in seen
    assert "The 9 filters of conv1, the first convolution, each beside its map of the same image, 16 × 16 px" in seen
    assert "those for red, green and blue are added up, since the image is grey" in seen
    assert "Filter 8" in seen
    coloured = words(render_gallery(PICTURE, learner(layer=fake_layer(3, 3))))
    assert "The filters are in the colours that they answer to" in coloured
    machine = words(render_gallery(PICTURE, learner(model="vgg16-svm", base="vgg16")))
    assert "vgg16-svm is an SVM: it sees what the frozen base vgg16 makes of an image" in machine


def test_a_model_without_a_convolution_is_told() -> None:
    seen = words(render_gallery(PICTURE, learner(model="mlp", layer=None)))
    assert "mlp has no convolution: each of its units has a weight for every pixel" in seen
    assert "Filter 0" not in seen


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prepared images, and of the two models that look at them one has no convolution."""
    import keras

    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    ids = ["0", "1", "2"]
    rows = pd.DataFrame({"image_id": ids, "label": ["ant", "bee", "ant"], "split": ["train", "validation", "test"]})
    rows = rows.assign(group=ids, source=["zero.png", "one.png", "two.png"], width=16, height=16)
    (root / "data/prepared").mkdir(parents=True)
    write_manifest(root / "data/prepared", Manifest(rows, ("ant", "bee")))
    with ShardWriter(root / "data/prepared", "images", (16, 16, 3), np.uint8, rows) as writer:
        writer.append(np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), np.uint8))
    runtime.configure(1)
    for name in ("cnn", "mlp"):
        images = x = keras.Input((16, 16, 3), name="image")
        if name == "cnn":
            x = keras.layers.Conv2D(5, 3, padding="same", name="first")(x)
        x = keras.layers.Dense(2, activation="softmax", name="classes")(keras.layers.Flatten()(x))
        folder = root / "models" / name
        folder.mkdir(parents=True)
        save_keras_model(folder / "model.keras", keras.Model(images, x, name="classifier"))
        write_json(folder / "classes.json", ["ant", "bee"])
        write_json(folder / "input.json", {"image_size": 16, "resize": "stretch"})
        write_calibration(folder, Calibration(1.0, None, 0.99))
    rows_of_board = [{"model": name, "champion": name == "cnn"} for name in ("cnn", "mlp")]
    write_json(root / "reports/leaderboard.json", rows_of_board)
    return root


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project


@pytest.mark.usefixtures("inside")
def test_the_champions_filters_on_the_first_test_image(capsys: pytest.CaptureFixture[str]) -> None:
    out = Path("reports/gallery.html")
    gallery(out=out)
    assert "two.png of class ant" in out.read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == (
        "reports/gallery.html: kernels made by hand on test image two.png of class ant, "
        "and of cnn the 5 filters of first"
    )


def test_an_own_image_and_another_model(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 30), "#804020").save(inside / "own.png")
    gallery(Path("own.png"), "mlp", Path("reports/own.html"))
    seen = words((inside / "reports/own.html").read_text(encoding="utf-8"))
    assert "Applied to the image own.png , which mlp takes for" in seen
    assert "mlp has no convolution" in seen
    assert "of mlp no filters, for it has no convolution" in capsys.readouterr().out


@pytest.mark.usefixtures("inside")
def test_what_is_no_image_or_no_model_is_named_and_nothing_written(inside: Path) -> None:
    (inside / "note.jpg").write_text("no picture")
    out = Path("reports/none.html")
    with pytest.raises(GalleryError, match=r"nowhere.png must be an image file \(JPEG, PNG, .*: unreadable: No such"):
        gallery(Path("nowhere.png"), out=out)
    with pytest.raises(GalleryError, match=r"note.jpg must be an image file .*, received: not-an-image"):
        gallery(Path("note.jpg"), out=out)
    with pytest.raises(ParamsError, match=r"models has no model 'lenet'; it has: cnn, mlp"):
        gallery(None, "lenet", out)
    assert not out.exists()


def test_without_a_finished_pipeline_it_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=r"leaderboard.json is missing; `dvc repro` makes it"):
        gallery()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.mark.browser
@pytest.mark.parametrize("layer", [fake_layer(), fake_layer(5), fake_layer(7, 3)], ids=["3", "5", "colours"])
def test_it_fits_the_window_in_both_colour_schemes_and_loads_nothing(
    browser: Any, tmp_path: Path, layer: FirstLayer
) -> None:
    file = tmp_path / "gallery.html"
    file.write_text(render_gallery(PICTURE, learner(layer=layer)), encoding="utf-8")
    tab = browser.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    assert tab.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert [address for address in asked if not address.startswith(("data:", file.as_uri()))] == []
    for width in (360, 768, 1280):
        tab.set_viewport_size({"width": width, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        cards = "[...document.querySelectorAll('.kernels li')]"
        assert tab.evaluate(f"{cards}.filter((card) => card.scrollWidth > card.clientWidth).length") == 0
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        colours = "(style => [style.color, style.backgroundColor])(getComputedStyle(document.body))"
        ink, paper = (sum(map(int, colour[4:-1].split(","))) for colour in tab.evaluate(colours))
        assert (ink < paper) == (scheme == "light")
    tab.close()
