import dataclasses
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from fake_runs import DEFAULT

from graft.reporting import svg
from graft.reporting.data import figures
from graft.reporting.data.findings import find
from graft.reporting.data.page import write_data_report
from graft.reporting.data.pictures import choose, to_address
from graft.reporting.data.quarantine import MEANINGS, UNKNOWN, by_reason
from graft.reporting.data.shortcuts import effect_of_class
from graft.reporting.data.tables import PreparedData, copies, legible, statistics, summarise, usable
from graft.reporting.data.wording import abridged, amount, named, share
from graft.sections import Data

SPLITS = ("train", "validation", "test")
QUARANTINE = ["source", "label", "reason", "detail"]
REASONS = (
    *("empty-file", "not-an-image", "truncated", "damaged", "too-large", "too-small", "unsupported-mode"),
    *("unreadable-file", "unsupported-extension", "outside-root", "link-loop", "outside-class-folder", "missing-file"),
    *(
        "no-label",
        "unknown-split",
        "no-image",
        "duplicate",
        "conflicting-group",
        "conflicting-label",
        "leaked-copy",
        "split-group",
    ),
)
MODULES = ("figures", "findings", "page", "pictures", "quarantine", "shortcuts", "tables", "wording")


def settings(**changes):
    return Data.model_validate(DEFAULT.data.model_dump() | {"source": "folder", "path": "photos"} | changes)


def image_rows(split_of_label, **columns):
    """One row per named split of each label; every other column is the same for all unless it is given."""
    rows = [(label, split) for label, splits in split_of_label.items() for split in splits]
    frame = pd.DataFrame(rows, columns=["label", "split"], dtype=object)
    frame["source"] = [f"{label}/{number}.png" for number, label in enumerate(frame["label"])]
    frame["image_id"] = [hashlib.sha256(source.encode("utf-8", "replace")).hexdigest() for source in frame["source"]]
    frame = frame.assign(pixel_id=frame["image_id"], group=None, width=40, height=40, format="PNG", bytes=100)
    frame = frame.assign(brightness=100.0, mean_r=100.0, mean_g=100.0, mean_b=100.0, std_r=50.0, std_g=50.0, std_b=50.0)
    return frame.assign(**columns)


def counted(images, quarantine):
    """counts.csv of these: what has neither split nor reason is unused."""
    kept = images[images["split"].notna() | ~images["source"].isin(quarantine["source"])]
    parts = pd.concat(
        [
            pd.DataFrame({"label": kept["label"], "part": kept["split"].fillna("unused")}),
            pd.DataFrame({"label": quarantine["label"], "part": "quarantined"}),
        ]
    )
    counts = pd.crosstab(parts["label"], parts["part"]).drop(index="", errors="ignore")
    return counts.reindex(columns=[*SPLITS, "unused", "quarantined"], fill_value=0).reset_index()


def prepared(images, quarantined=(), leader=None, bridges=(), **changes):
    quarantine = pd.DataFrame(list(quarantined), columns=QUARANTINE, dtype=object)
    reasons = {row[0]: row[2] for row in quarantined if row[2] != "duplicate"}  # a copy has no row among the images
    images = images.assign(reason=images["source"].map(reasons).astype(object))
    numbers = np.arange(len(images))
    pictures = np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (len(images), 16, 16, 3))
    leader = numbers if leader is None else np.array(leader)
    changes = {"image_size": 16, **changes}
    counts = counted(images, quarantine)
    return PreparedData(settings(**changes), images, pictures, quarantine, counts, leader, np.array(bridges, int))


def usual(**columns):
    many = ["train"] * 25 + ["validation"] * 5 + ["test"] * 5
    return image_rows({"ants": many, "bees": many}, **columns)


def texts(data, level=None):
    """Title and text of the findings, without their markup."""
    return {
        finding.title: re.sub(r"<[^>]+>", "", str(finding.text))
        for finding in find(legible(data))
        if level in (None, finding.level)
    }


def page_of(tmp_path, data):
    write_data_report(tmp_path, data)
    return (tmp_path / "index.html").read_text(encoding="utf-8")


def visible(html):
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body))


class Outline(HTMLParser):
    """Tags, addresses, ids and texts of the page as a browser takes them."""

    def __init__(self, markup):
        super().__init__()
        self.open, self.tags, self.addresses, self.ids, self.handlers = [], [], [], [], []
        self.images, self.titles = [], []
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "action", "srcset")
        ]
        self.handlers += [name for name in values if name.startswith("on")]
        self.images += [values] if tag == "img" else []
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in ("meta", "img", "br"):
            assert self.open.pop() == tag


def check_page(html):
    """It is well-formed and loads nothing; returns its outline."""
    outline = Outline(html)
    assert outline.open == []
    assert not {"script", "link", "iframe", "object"} & set(outline.tags)
    assert outline.handlers == []
    local = {"../index.html", "statistics.csv", "duplicates.csv", "quarantine.csv"}
    assert all(address in local or address.startswith(("#", "data:image/webp;")) for address in outline.addresses)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"' )<]+", html)) <= namespaces
    assert not re.search(r"@import|url\((?!#)", html)
    assert len(outline.ids) == len(set(outline.ids))
    referred = {address[1:] for address in outline.addresses if address.startswith("#")}
    assert referred | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(outline.ids)
    return outline


class TestTables:
    def test_statistics_are_those_of_the_pixels(self):
        pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3)).astype(float)
        columns = {f"mean_{c}": pixels[..., k].mean((1, 2)) for k, c in enumerate("rgb")}
        columns |= {f"std_{c}": pixels[..., k].std((1, 2)) for k, c in enumerate("rgb")}
        images = image_rows({"ants": ["train"] * 4}, brightness=pixels.mean((1, 2, 3)), **columns)
        (row,) = summarise(images, ["label"]).to_dict("records")
        assert row["brightness"] == pytest.approx(pixels.mean())
        for k, channel in enumerate("rgb"):
            assert row[f"mean_{channel}"] == pytest.approx(pixels[..., k].mean())
            assert row[f"std_{channel}"] == pytest.approx(pixels[..., k].std())

    def test_statistics_stand_by_class_and_split_with_shares_of_the_split(self):
        images = image_rows({"ants": ["train", "train", "test"], "bees": ["train", None]}, width=[10, 30, 50, 70, 90])
        table = statistics(usable(legible(prepared(images)).images))
        assert table[["label", "split", "n", "share", "median_width"]].to_numpy().tolist() == [
            ["ants", "train", 2, 0.6667, 20.0],
            ["ants", "test", 1, 1.0, 50.0],
            ["bees", "train", 1, 0.3333, 70.0],
            ["bees", "unused", 1, 1.0, 90.0],
        ]
        assert table["median_aspect"].tolist() == [0.5, 1.25, 1.75, 2.25]

    def test_images_that_were_left_out_are_in_no_statistics(self):
        images = image_rows({"ants": ["train", None, None]})
        left_out = [("ants/1.png", "ants", "leaked-copy", ""), ("ants/2.png", "ants", "duplicate", "of one elsewhere")]
        shown = legible(prepared(images, left_out)).images
        assert shown["status"].tolist() == [
            "train",
            "leaked-copy",
            "unused",
        ]  # a copy's row is that of the one that stays
        assert len(usable(shown)) == 2

    def test_copies_say_whose_and_of_which_kind(self):
        images = image_rows({"ants": ["train", "train", "train", "test", "test"]})
        images.loc[2, "pixel_id"] = images.loc[0, "pixel_id"]
        data = legible(prepared(images, leader=[0, 0, 0, 3, 4], bridges=[(1, 3)]))
        table = copies(data)[["leader", "source", "kind", "split"]].to_numpy().tolist()
        assert table == [
            ["ants/0.png", "ants/0.png", "leader", "train"],
            ["ants/0.png", "ants/1.png", "near", "train"],
            ["ants/0.png", "ants/2.png", "exact", "train"],
            ["ants/1.png", "ants/3.png", "bridge", "test"],
            ["ants/3.png", "ants/3.png", "leader", "test"],
        ]

    def test_names_that_no_file_can_carry_are_written_as_numbers(self):
        data = prepared(image_rows({"ants": ["train", "test"]}))
        sources = pd.Series(["a\udc80.png", "b\x00\n.png"], dtype=object)
        shown = legible(dataclasses.replace(data, images=data.images.assign(source=sources))).images
        assert shown["source"].tolist() == ["a\\xdc80.png", "b\\x00\\x0a.png"]

    def test_without_copies_the_table_has_its_heading_alone(self, tmp_path):
        page_of(tmp_path, prepared(usual()))
        assert (tmp_path / "duplicates.csv").read_text() == "leader,source,label,kind,split\n"


class TestFindings:
    def test_sound_data_has_nothing_to_look_at(self):
        data = prepared(usual(brightness=np.tile(np.arange(35.0), 2)))
        assert texts(data, "look") == {}
        found = texts(data)
        assert found["The classes are balanced"] == "Each of the 2 classes has 25 training images."
        assert found["How the images are divided"] == (
            "50 images to learn from, 10 to choose between models by (validation), 10 for the final figures (test)."
        )

    @pytest.mark.parametrize(("largest", "level"), [(39, "fine"), (40, "look")])
    def test_imbalance_counts_from_twice_the_smallest(self, largest, level):
        images = image_rows({"ants": ["train"] * largest, "bees": ["train"] * 20})
        found = find(legible(prepared(images, test="none")))
        (balance,) = [finding for finding in found if "class, <b><bdi>ants" in finding.text]
        assert balance.level == level
        assert ("train.class_weights: balanced" in balance.text) == (level == "look")

    @pytest.mark.parametrize(("number", "told"), [(19, True), (20, False)])
    def test_a_class_with_fewer_than_twenty_training_images_is_named(self, number, told):
        found = texts(prepared(image_rows({"ants": ["train"] * number, "bees": ["train"] * 21})), "look")
        assert ("Few images to learn from" in found) == told
        if told:
            assert found["Few images to learn from"].startswith("1 class has fewer than 20 training images: ants.")

    def test_a_class_that_a_split_lacks_is_named(self):
        images = image_rows({"ants": ["train"] * 20 + ["test"], "bees": ["train"] * 20})
        found = texts(prepared(images), "look")
        assert found["Classes without test images"] == "1 class has no test image: bees."
        assert "Classes without validation images" not in found  # there is no validation split at all

    @pytest.mark.parametrize(
        ("test", "begin"), [("none", "As data.test: none asks, no image"), (0.2, "No image is held")]
    )
    def test_an_empty_test_split_is_told(self, test, begin):
        found = texts(prepared(image_rows({"ants": ["train", "validation"]}), test=test), "look")
        assert found["There are no test images"].startswith(begin)

    def test_effect_of_class_is_omega_squared(self):
        # Means 2 and 6 around 4: between 6 x 4 = 24, within 4, of 1 and 4 degrees: (24 - 1) / (28 + 1).
        values, labels = pd.Series([1.0, 2, 3, 5, 6, 7]), pd.Series(list("aaabbb"))
        effect, chance = effect_of_class(values, labels)
        assert effect == pytest.approx(23 / 29)
        assert chance == pytest.approx(0.00805, abs=1e-5)  # F(1, 4) = 24

    def test_chance_and_constants_have_no_effect(self):
        labels = pd.Series([str(k % 50) for k in range(100)])
        values = pd.Series(np.random.default_rng(0).normal(size=100))
        assert effect_of_class(values, labels)[1] > 0.01
        assert effect_of_class(pd.Series(np.full(100, 0.1)), labels) == (0.0, 1.0)
        assert effect_of_class(pd.Series([1.0, 2.0]), pd.Series(["a", "a"])) == (0.0, 1.0)

    @pytest.mark.parametrize(
        ("column", "values", "title", "told"),
        [
            ("brightness", (60.0, 160.0), "brightness", "ants are 60 of 255 on average, those of bees are 160"),
            ("width", (40, 400), "size", "ants are typically 40 × 40 px, those of bees are typically 400 × 40 px"),
            ("width", (40, 400), "shape", "ants are typically 40 × 40 px, those of bees are typically 400 × 40 px"),
            ("format", ("PNG", "JPEG"), "file format", "ants are 100 % PNG, those of bees are 100 % JPEG"),
        ],
    )
    def test_a_trait_that_gives_the_class_away_is_told(self, column, values, title, told):
        images = usual(**{column: [value for value in values for _ in range(35)]})
        found = texts(prepared(images), "look")
        sentence = found[f"The {title} may give the class away"]
        assert "The class explains 100 % of how much the 70 images differ" in sentence
        assert told in sentence

    def test_blank_images_are_named(self):
        images = usual()
        images.loc[3, ["std_r", "std_g", "std_b"]] = 0.0
        images.loc[4, "std_r"] = 0.0
        assert texts(prepared(images), "look")["Blank images"] == (
            "1 image shows a single colour and nothing else: ants/3.png."
        )

    @pytest.mark.parametrize(("resize", "told"), [("stretch", "35 of 70 images (50 %)"), ("pad", None)])
    def test_enlarged_images_are_counted_as_the_resize_enlarges(self, resize, told):
        images = usual(width=[31] * 35 + [32] * 35)
        found = texts(prepared(images, image_size=32, resize=resize))
        assert found.get("Images smaller than asked for", "").startswith(told or "")
        assert ("No image is enlarged" in found) == (told is None)

    @pytest.mark.parametrize(("files", "level"), [(3, "note"), (4, "look")])
    def test_many_faulty_files_are_to_be_looked_at(self, files, level):
        faults = [(f"ants/bad-{number}.png", "ants", "truncated", "") for number in range(files)]
        found = texts(prepared(usual(), faults), level)
        assert found["Files that could not be used"].startswith(
            f"{files} files or rows ({[4, 5][files - 3]} % of {70 + files})"
        )

    def test_copies_conflicts_and_leaks_are_told_apart(self):
        images = usual()
        images.loc[[1, 2], "split"] = None
        left_out = [
            ("ants/1.png", "ants", "conflicting-label", ""),
            ("ants/2.png", "ants", "leaked-copy", ""),
            ("ants/again.png", "ants", "duplicate", ""),
        ]
        leader = np.arange(70)
        leader[[1, 2]] = 0
        found = texts(prepared(images, left_out, leader, [(5, 9)]))
        assert found["One picture, two classes"].startswith("1 file shows the same picture as a file of another class")
        assert found["Kept from leaking into the test"].startswith("1 image was left out")
        assert found["Pictures that are there more than once"] == (
            "1 file is left out, being byte for byte the same as another; "
            "3 images form 1 group of one picture in different files; "
            "1 further pair looks alike across groups. No picture is in two splits."
        )
        assert "Every file could be used" in found

    def test_what_is_to_be_looked_at_comes_first(self):
        found = find(legible(prepared(image_rows({"ants": ["train"] * 3, "bees": ["train"] * 30}))))
        levels = [finding.level for finding in found]
        assert levels == sorted(levels, key=["look", "note", "fine"].index)
        assert {"look", "note", "fine"} == set(levels)


class TestQuarantine:
    def test_every_reason_has_a_sentence(self):
        assert set(MEANINGS) == set(REASONS)
        assert all(meaning[0].isupper() and meaning.endswith(".") for meaning in MEANINGS.values())

    def test_the_most_frequent_reason_comes_first_with_examples_by_source(self):
        rows = [(f"{9 - k}.png", "", "truncated", "") for k in range(4)] + [("x", "", "made-up", "no <b>")]
        reasons = by_reason(pd.DataFrame(rows, columns=QUARANTINE))
        assert [(reason.name, reason.count) for reason in reasons] == [("truncated", 4), ("made-up", 1)]
        assert [source for source, _ in reasons[0].examples] == ["6.png", "7.png", "8.png"]
        assert reasons[1].meaning == UNKNOWN

    def test_each_reason_is_explained_on_the_page(self, tmp_path):
        left_out = [(f"{reason}.png", "ants", reason, "detail") for reason in REASONS]
        seen = visible(page_of(tmp_path, prepared(usual(), left_out)))
        assert f"{len(REASONS)} files or rows, each listed in quarantine.csv" in seen
        assert all(reason in seen for reason in REASONS)
        assert seen.count("For example") == 1

    @pytest.mark.parametrize("number", [1, 10_000])
    def test_one_and_ten_thousand_rows(self, tmp_path, number):
        left_out = [(f"{k:05d}.png", "ants", "damaged", "") for k in range(number)]
        html = page_of(tmp_path, prepared(usual(), left_out))
        assert len(html) < 200_000
        seen = visible(html)
        assert ("and 9,997 more" in seen) == (number > 1)
        assert ("1 file or row, each" if number == 1 else "10,000 files or rows, each") in seen


class TestGallery:
    def gallery(self, data):
        shown = legible(data)
        return choose(shown, copies(shown))

    def test_samples_are_training_images_with_the_lowest_ids(self):
        data = prepared(image_rows({f"c{k}": ["train"] * 12 + ["test"] * 12 for k in range(10)}))
        samples = self.gallery(data).samples
        assert [sample.label for sample in samples] == [f"c{k}" for k in range(10)]
        rows = data.images[(data.images["label"] == "c3") & (data.images["split"] == "train")]
        assert [tile.source for tile in samples[3].tiles] == rows.sort_values("image_id")["source"].tolist()[:8]
        assert samples[3].count == 24

    def test_caps_hold(self):
        images = image_rows({f"c{k:03d}": ["train"] * 10 for k in range(50)})
        leader = np.repeat(np.arange(0, 500, 10), 10)
        shown = self.gallery(prepared(images, leader=leader, bridges=[(k, k + 10) for k in range(20)]))
        assert (len(shown.samples), len(shown.groups), len(shown.pairs)) == (40, 30, 12)
        assert (shown.all_groups, shown.all_pairs) == (50, 20)
        assert {(len(group.tiles), group.hidden) for group in shown.groups} == {(8, 2)}
        assert [tile.kind for tile in shown.groups[0].tiles] == ["leader"] + ["near"] * 7

    def test_only_shown_pictures_are_read(self):
        class Watched:
            rows = 0

            def __getitem__(self, rows):
                Watched.rows += len(rows)
                return np.zeros((len(rows), 16, 16, 3), np.uint8)

        images = image_rows({f"c{k}": ["train"] * 500 for k in range(20)})
        self.gallery(dataclasses.replace(prepared(images), pictures=Watched()))
        assert Watched.rows == 20 * 8

    def test_small_pictures_keep_their_pixels_and_large_ones_shrink(self):
        import base64
        import io

        from PIL import Image

        def opened(address):
            return Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/webp;base64,"))))

        small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        assert (np.asarray(opened(to_address(small, 64)).convert("RGB")) == small).all()
        assert opened(to_address(np.zeros((224, 224, 3), np.uint8), 96)).size == (96, 96)


class TestFigures:
    def test_two_hundred_classes_show_both_ends_of_the_ranking(self):
        counts = pd.DataFrame({"label": [f"c{k:03d}" for k in range(200)], "train": np.arange(200)[::-1] + 1})
        drawn = figures.class_counts(counts.assign(validation=0, test=0, unused=0), "counts.svg")
        assert "… and 170 more classes …" in drawn
        assert all(label in drawn for label in ("c000", "c014", "c185", "c199"))
        assert "c015" not in drawn
        assert "validation" not in drawn  # the legend names what there is

    def test_what_is_the_same_everywhere_is_not_drawn(self):
        data = legible(prepared(usual()))
        assert set(figures.draw(data.images, data.counts, 16)) == {"counts.svg", "channels.svg"}
        varied = data.images.assign(width=np.arange(70) + 10, brightness=np.arange(70.0))
        assert set(figures.draw(varied, data.counts, 16)) == {
            *("counts.svg", "channels.svg", "sizes.svg", "aspects.svg", "brightness.svg")
        }

    def test_grey_images_have_one_channel(self):
        data = legible(prepared(usual()))
        assert "grey" in figures.channels(data.images, "c")
        assert "green" in figures.channels(data.images.assign(mean_g=90.0), "c")

    def test_every_image_is_in_its_histogram(self):
        # 8 to 16 px: one octave, whose edges the smallest and the largest image stand on.
        axis = figures.Axis("px", figures._octaves(pd.Series([3.0, 4.0])), 1)
        assert (axis.edges[0], axis.edges[-1], len(axis.edges)) == (3, 4, 33)
        assert np.histogram([3.0, 4.0], axis.edges)[0].sum() == 2


NAMES = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "it's \"quoted\" & 'more'",
    "النحل",
    "evil\u202egnp.exe",
    "🐝👩‍🔬",
    "x" * 4000,
    "$5 \\alpha_$ {{ 7 * 7 }} {% raw %} {0}",
    "tab\tbell\x07nul\x00",
)


class TestPage:
    def test_it_loads_nothing_and_equal_data_gives_equal_bytes(self, tmp_path):
        data = prepared(usual(brightness=np.arange(70.0), width=np.arange(70) + 9), [("a.txt", "", "no-image", "")])
        outline = check_page(page_of(tmp_path / "first", data))
        assert {"../index.html", "quarantine.csv"} <= set(outline.addresses)
        assert all(image["alt"] and image["title"] for image in outline.images)
        page_of(tmp_path / "second", data)
        for path in sorted((tmp_path / "first").iterdir()):
            assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()

    def test_figures_follow_the_pages_theme(self, tmp_path):
        html = page_of(tmp_path, prepared(usual(mean_r=90.0, brightness=np.arange(70.0))))
        body = html[html.index("</style>") :]
        assert body.count("<svg") == 3
        assert not [colour for colour in svg.THEME if colour in body]
        variables = set(re.findall(r"var\((--\w+)\)", html))
        assert variables <= set(re.findall(r"(--\w+):", html))

    def test_the_heading_says_how_much_there_is_and_how_much_to_look_at(self, tmp_path):
        seen = visible(page_of(tmp_path, prepared(image_rows({"ants": ["train"] * 1200, "bees": ["train"] * 30}))))
        assert "1,230 images of 2 classes, 2 things to look at" in seen
        assert seen.index("There are no test images") < seen.index("How the images are divided")
        calm = usual(brightness=np.tile(np.arange(35.0), 2))
        assert "70 images of 2 classes, nothing conspicuous" in visible(page_of(tmp_path, prepared(calm)))

    def test_hostile_names_are_shown_and_do_nothing(self, tmp_path):
        images = image_rows({name: ["train"] * 3 + ["validation", "test", None] for name in NAMES})
        images["format"], images["group"] = "<b>PNG</b>", NAMES[0]
        images["brightness"] = images["label"].map({name: 20.0 * k for k, name in enumerate(NAMES)})
        left_out = [(f"{name}/bad.png", name, name, name) for name in NAMES]
        leader = np.arange(54) // 2 * 2
        data = prepared(images, left_out, leader, [(0, 6)], path="<script>/" + NAMES[1])
        html = page_of(tmp_path, data)
        outline = check_page(html)
        assert outline.images
        assert all(set(image) == {"loading", "src", "title", "alt"} for image in outline.images)
        seen = visible(html)
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in seen
        assert "{{ 7 * 7 }}" in seen
        assert "tab\\x09bell\\x07nul\\x00" in seen
        assert "x" * 200 not in seen
        assert "\u202e" not in re.sub(r"<bdi>.*?</bdi>|<svg.*?</svg>|<img.*?>|title=\"[^\"]*\"", "", html, flags=re.S)
        assert pd.read_csv(tmp_path / "duplicates.csv")["label"].nunique() == len(NAMES)

    def test_two_hundred_classes_are_all_in_the_tables(self, tmp_path):
        images = image_rows({f"class {k:03d}": ["train", "train", "test"] for k in range(200)})
        html = page_of(tmp_path, prepared(images))
        check_page(html)
        seen = visible(html)
        assert seen.count("class 199") == 2  # counts and statistics
        assert "The first 40 classes by name are shown, 160 more are not." in seen
        assert len(html) < 1_500_000

    def test_what_is_the_same_everywhere_is_said_in_words(self, tmp_path):
        seen = visible(page_of(tmp_path, prepared(usual())))
        assert "All images are 40 × 40 px." in seen
        assert "All images are equally bright: 100 of 255." in seen
        assert "No two different files show the same picture." in seen
        assert "Nothing: every file of the source is an image" in seen

    def test_one_class_and_one_image(self, tmp_path):
        seen = visible(page_of(tmp_path, prepared(image_rows({"ants": ["train"]}))))
        assert "1 image of 1 class" in seen

    def test_group_members_say_label_use_and_kind(self, tmp_path):
        images = image_rows({"ants": ["train", "train"], "bees": [None]})
        images.loc[1, "pixel_id"] = images.loc[0, "pixel_id"]
        data = prepared(images, [("bees/2.png", "bees", "conflicting-label", "")], [0, 0, 0])
        seen = visible(page_of(tmp_path, data))
        assert "3 images ants train reference ants train same pixels bees conflicting-label similar" in seen

    def test_tables_can_be_scrolled_by_keyboard_and_are_named(self, tmp_path):
        html = page_of(tmp_path, prepared(usual(), [("a", "", "no-image", "")]))
        boxes = re.findall(r'<div class="scroll[^>]*>', html)
        assert len(boxes) == html.count("<table") == 4
        assert all('tabindex="0" role="region" aria-label="' in box for box in boxes)


def test_words():
    assert (amount(1, "class", "classes"), amount(1234, "image")) == (
        "1 image".replace("image", "class"),
        "1,234 images",
    )
    assert [share(part, 1000) for part in (0, 1, 10, 995, 1000)] == ["0 %", "under 1 %", "1 %", "100 %", "100 %"]
    assert abridged("a" * 70 + "end", 30) == "a" * 20 + "…" + "a" * 7 + "end"
    assert (
        named(["<i>", "b", "c", "d"])
        == "<b><bdi>&lt;i&gt;</bdi></b>, <b><bdi>b</bdi></b>, <b><bdi>c</bdi></b> and 1 more"
    )


def test_the_report_imports_nothing_of_the_comparison():
    code = (
        "import sys, graft.reporting.data.page\n"
        "print(sorted(m for m in sys.modules if m.startswith('graft.') or m in ('tensorflow', 'mlflow', 'dvc')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {"errors", "faults", "reporting", "reporting.svg", "reporting.templates", "sections", "storage"}
    ours |= {"reporting.data"} | {f"reporting.data.{name}" for name in MODULES}
    assert set(re.findall(r"'(?:graft\.)?([\w.]+)'", done.stdout)) == ours


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"split": "kfold", "folds": 4, "fold": 2}, "into 4 folds, of which fold 2, counted from 0, validates."),
        ({"split": "predefined"}, "The source's own splits were kept"),
        ({"resize": "pad"}, "resized to 16 × 16 px with black borders to make it square."),
        ({"resize": "crop"}, "cut to its middle square and resized to 16 × 16 px."),
    ],
)
def test_the_treatment_is_said(tmp_path, changes, told):
    html = page_of(tmp_path, prepared(image_rows({"ants": ["train"]}), **changes))
    assert told in visible(html).replace("&#39;", "'")
