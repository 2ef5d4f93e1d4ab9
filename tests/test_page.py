import base64
import dataclasses
import io
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_comparison import fake_comparison
from fake_runs import DIGITS, fake_params, write_data_report
from PIL import Image

from graft.reporting import (
    answer,
    calibration_figures,
    cost_figures,
    data_curves,
    feature_maps,
    figures,
    leaderboard,
    page,
    svg,
    text,
    transfer_figures,
)
from graft.storage import ArtifactError

PARAMS = fake_params(2)
DRAWING = (figures, calibration_figures, cost_figures, data_curves, feature_maps, transfer_figures)
BLANK = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><g/></svg>'


def rendered(folder, params=PARAMS, *, classes=DIGITS, reasons=(), preview=None, comparison=None, drawn=False, **facts):
    """The page, with blank figures, which take no time, unless it is to be drawn."""
    comparison = comparison or fake_comparison(params, classes=classes, **facts)
    write_data_report(folder, classes, reasons)
    data = page.read_data_report(folder / "data", preview)
    drawings = figures.draw(comparison) if drawn else blank_figures(comparison)
    return page.render_page(params, comparison, drawings, data)


def blank_figures(comparison):
    with pytest.MonkeyPatch.context() as patch:
        for module in DRAWING:
            patch.setattr(module, "to_svg", lambda figure, name: BLANK)
        return figures.draw(comparison)


def visible(html):
    body = re.sub(r"<(style|script)>.*?</\1>|<svg.*?</svg>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", body)).replace("\u00a0", " "))


class Outline(HTMLParser):
    """What a browser would load, whether the tags match, and the leaderboard's raw values."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self, markup):
        super().__init__()
        self.open, self.addresses, self.ids, self.tags, self.values = [], [], [], [], {}
        self._model = None
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        facts = dict(attributes)
        for name, value in attributes:
            self.ids += [value] if name == "id" else []
            self.addresses += [value] if name in ("src", "href", "xlink:href", "action", "srcset") else []
        if tag == "th" and facts.get("scope") == "row":
            self._model = facts.get("data-value")
        if "data-name" in facts:
            self.values[self._model, facts["data-name"]] = facts["data-value"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The page of a comparison in which everything was measured, rendered once."""
    return rendered(tmp_path_factory.mktemp("reports"), reasons=["duplicate", "truncated", "duplicate"], drawn=True)


def records():
    return leaderboard.as_records(fake_comparison(PARAMS).frame)


class TestPage:
    def test_it_is_well_formed_and_loads_nothing(self, html):
        outline = Outline(html)
        assert outline.open == []
        assert not {"link", "iframe", "object"} & set(outline.tags)
        assert outline.tags.count("script") == 1
        links = {"data/index.html", "tables/suspects.csv"}
        assert all(address.startswith(("#", "data:")) for address in outline.addresses if address not in links)
        assert not re.search(r"@import|url\((?!#)", html)
        namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        assert set(re.findall(r"https?://[^\"' )<]+", html)) <= namespaces

    def test_ids_are_unique_and_every_reference_leads_to_one(self, html):
        outline = Outline(html)
        assert len(outline.ids) == len(set(outline.ids))
        referred = {address[1:] for address in outline.addresses if address.startswith("#")}
        assert referred | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(outline.ids)

    def test_figures_follow_the_pages_theme(self, html):
        body = html[html.index("</style>") :]
        assert not [colour for colour in svg.THEME if colour in body]
        assert body.count("<style") == 0

    def test_equal_inputs_give_equal_bytes(self, tmp_path, html):
        assert rendered(tmp_path, reasons=["duplicate", "truncated", "duplicate"], drawn=True) == html

    def test_the_answer_comes_first_with_interval_and_number(self, html):
        first = records()[0]
        seen = visible(html)
        opening = f"{first['model']} is the champion: {text.percent(first['test_accuracy'])} of 360 test images"
        assert opening in seen
        assert text.interval(first["test_accuracy_low"], first["test_accuracy_high"]) in seen
        assert seen.index(opening) < seen.index("Leaderboard")

    def test_what_is_established_is_said_of_each_model(self, html):
        verdicts = answer.by_verdict(records())
        seen = visible(html)
        assert verdicts["not distinguishable"]
        assert verdicts["worse"]
        assert f"Not distinguishable from the champion: {verdicts['not distinguishable'][0]}" in seen
        assert f"Less accurate, established: {verdicts['worse'][0]}" in seen
        assert "More accurate, established" not in seen

    def test_a_cheaper_model_that_keeps_up_is_named_with_what_is_not_known(self, html):
        advice = answer.recommend(records())
        seen = visible(html)
        assert f"{advice.model} is not distinguishable from the champion on these images and" in seen
        assert f"{text.times(advice.factor)} faster" in seen
        assert f"up to {text.points(advice.at_most_behind).lstrip('+')} percentage points less accurate" in seen

    def test_a_model_that_may_be_far_behind_is_no_advice(self, tmp_path):
        comparison = fake_comparison(PARAMS)
        rows = leaderboard.as_records(comparison.frame)
        near = answer.recommend(rows)
        behind = [row | {"difference_high": answer.MARGIN + 0.01} for row in rows if row["verdict"] != "better"]
        assert near is not None
        assert answer.recommend(behind) is None
        frame = comparison.frame.assign(difference_high=np.where(comparison.frame["champion"], np.nan, 0.2))
        seen = visible(rendered(tmp_path, comparison=dataclasses.replace(comparison, frame=frame)))
        assert "Worth considering" not in seen
        assert "No model that is clearly faster is known to keep up with the champion (within 5 percentage" in seen

    def test_a_faster_and_better_model_is_said_to_be_both(self, tmp_path):
        comparison = fake_comparison(PARAMS)
        frame = comparison.frame.copy()
        cnn = frame["model"] == "cnn"
        frame.loc[cnn, ["difference", "difference_low", "difference_high"]] = [-0.03, -0.05, -0.01]
        frame.loc[cnn, "verdict"] = "better"
        seen = visible(rendered(tmp_path, comparison=dataclasses.replace(comparison, frame=frame)))
        assert "cnn is established to be more accurate on these images and" in seen
        assert "percentage points less accurate" not in seen
        assert "More accurate, established on the test images, although behind on validation: cnn" in seen

    def test_the_leaderboard_holds_the_exact_numbers(self, html):
        values = Outline(html).values
        found = records()
        names = {name for _, name in values}
        assert {"val_log_loss", "test_roc_auc", "p_adjusted", "throughput", "logme", "verdict"} <= names
        for record in found:
            for name in names - {"verdict"}:
                shown = values[record["model"], name]
                assert (float(shown) if shown else None) == record[name]
            assert values[record["model"], "verdict"] == record["verdict"]

    def test_the_contents_lead_to_the_sections(self, html):
        contents = re.findall(r'<li><a href="#(\w+)">', html)
        assert contents == re.findall(r'<section id="(\w+)"', html) == list(page.CONTENTS)

    def test_calibration_and_abstaining_are_told_in_words(self, html):
        first = records()[0]
        point = answer.abstaining(fake_comparison(PARAMS).coverage[first["model"]], first["abstain_below"])
        seen = visible(html)
        assert f"It abstains below a confidence of {first['abstain_below']:.2f}" in seen
        assert f"answers {text.percent(point.share)} of the images" in seen
        assert f"temperature {first['temperature']:.2f}" in seen

    def test_a_model_that_always_abstains_says_so(self, tmp_path):
        comparison = fake_comparison(PARAMS)
        champion = dataclasses.replace(comparison.champion, abstain_below=None)
        frame = comparison.frame.assign(abstain_below=np.where(comparison.frame["champion"], np.nan, 0.6))
        runs = {**comparison.runs, champion.model: champion}
        seen = visible(rendered(tmp_path, comparison=dataclasses.replace(comparison, frame=frame, runs=runs)))
        assert "so predict always abstains" in seen

    def test_what_was_not_measured_leaves_no_empty_section(self, tmp_path):
        html = rendered(tmp_path, bare=True)
        assert Outline(html).open == []
        assert re.findall(r'<section id="(\w+)"', html) == re.findall(r'<li><a href="#(\w+)">', html)
        assert not {"bases", "costs", "inside", "slices"} & set(re.findall(r'<section id="(\w+)"', html))
        assert "make curve" in visible(html)
        assert " nan" not in visible(html).lower()

    def test_few_bases_say_little(self, tmp_path):
        seen = visible(rendered(tmp_path, fake_params(4), per_class=4))
        assert "4 bases say little: even the same order would have p = 0.083" in seen

    def test_slices_and_suspects_are_named(self, html):
        seen = visible(html)
        assert "Established to be worse than the rest: class: 8 (80.0 % of 60)" in seen
        assert "14 images of which a model that had not seen them" in seen

    def test_the_weakest_slice_is_named_where_none_is_established_to_be_worse(self, tmp_path):
        comparison = fake_comparison(PARAMS)
        slices = comparison.slices.assign(worse=False)
        seen = visible(rendered(tmp_path, comparison=dataclasses.replace(comparison, slices=slices)))
        assert "is established to be worse than the rest. The weakest is class: 8: 80.0 % of 60, elsewhere" in seen

    def test_top_k_is_left_out_where_every_class_is_among_them(self, tmp_path, html):
        assert ("vgg16", "test_top_k_accuracy") in Outline(html).values
        two = Outline(rendered(tmp_path, classes=("ants", "bees"), per_class=20))
        assert ("vgg16", "test_accuracy") in two.values
        assert ("vgg16", "test_top_k_accuracy") not in two.values

    def test_the_pages_origin_is_told(self, html):
        seen = visible(html)
        assert "git checkout 3e0d64d8f7a1" in seen
        assert "0123456789abcdef0123456789abcdef.dir" in seen
        assert "application: VGG16" in html

    def test_strings_are_escaped(self, tmp_path):
        classes = ("<script>alert(1)</script>", "a & b", "plain")
        html = rendered(tmp_path, classes=classes, per_class=4, reasons=["<i>odd</i>"])
        assert html.count("<script") == 1
        assert "<i>odd" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        assert "a &amp; b" in html

    @pytest.mark.parametrize("bases", [0, 1])
    @pytest.mark.parametrize("classes", [("ants", "<b>&"), tuple(f"class {k} of a long name" for k in range(120))])
    def test_odd_sizes_are_shown(self, tmp_path, classes, bases):
        html = rendered(tmp_path, fake_params(bases), classes=classes, per_class=3)
        assert Outline(html).open == []
        assert "<b>&<" not in html

    @pytest.mark.parametrize("facts", [{"champion": "vgg16-svm", "alike": True, "curve": False}, {"repeats": 3}])
    def test_other_outcomes_are_shown(self, tmp_path, facts):
        html = rendered(tmp_path, **facts)
        assert Outline(html).open == []
        seen = visible(html)
        if "alike" in facts:
            assert "An SVM on frozen features" in seen
            assert "Less accurate, established" not in seen
        else:
            assert "Trained from 3 random starts" in seen

    def test_without_test_images_it_says_what_that_means(self, tmp_path):
        params = fake_params(1, test="none")
        seen = visible(rendered(tmp_path, params, per_class=6, test=False))
        assert "of 60 validation images recognised" in seen
        assert "There are no test images" in seen
        assert "The same images chose the champion, which flatters it in each comparison" in seen
        assert "it is measured on those that chose the temperature, which flatters it" in seen
        assert "Test, n =" not in seen

    def test_counts_are_summed_and_quarantine_reasons_counted(self, tmp_path, html):
        write_data_report(tmp_path, DIGITS, ["duplicate", "truncated", "duplicate"])
        data = page.read_data_report(tmp_path / "data", None)
        assert data.columns == ["label", "train", "validation", "test", "unused", "quarantined"]
        assert data.totals() == [200, 360, 360, 880, 0]
        assert "3 files quarantined: 2 duplicate, 1 truncated;" in visible(html)

    def test_a_preview_is_inlined_where_there_is_one(self, tmp_path):
        image = tmp_path / "augmentation.png"
        write_data_report(tmp_path, DIGITS)
        assert page.read_data_report(tmp_path / "data", image).preview is None
        Image.new("RGB", (40, 20), "teal").save(image)
        data = page.read_data_report(tmp_path / "data", image)
        assert Image.open(io.BytesIO(data.preview)).convert("RGB").getpixel((39, 19)) == (0, 128, 128)
        inlined = base64.b64encode(data.preview).decode()
        assert f"data:image/png;base64,{inlined}" in rendered(tmp_path, fake_params(0), bare=True, preview=image)
        image.write_bytes(b"\x89PNG")
        with pytest.raises(ArtifactError, match=r"augmentation.png is no readable picture"):
            page.read_data_report(tmp_path / "data", image)

    def test_class_names_that_look_like_numbers_or_nothing_are_kept(self, tmp_path):
        classes = ("007", "1e3", "NA", "")
        write_data_report(tmp_path, classes)
        assert [row[0] for row in page.read_data_report(tmp_path / "data", None).counts] == list(classes)

    @pytest.mark.parametrize("file", ["counts.csv", "quarantine.csv"])
    def test_a_missing_or_damaged_table_is_named(self, tmp_path, file):
        write_data_report(tmp_path, DIGITS)
        path = tmp_path / "data" / file
        path.write_text("class,train\nants,-1\n")
        with pytest.raises(ArtifactError, match=file):
            page.read_data_report(tmp_path / "data", None)
        path.unlink()
        with pytest.raises(ArtifactError, match=f"{file} is missing"):
            page.read_data_report(tmp_path / "data", None)
