import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fake_runs import DIGITS, fake_history, fake_params, fake_predictions, write_data_report, write_reports, write_run

from graft.metrics import classification_metrics, confusion
from graft.reporting import figures, leaderboard, page, svg, text
from graft.reporting.leaderboard import COLUMNS, Run, build_leaderboard, read_runs
from graft.storage import ArtifactError

PARAMS = fake_params(2)


def made_up(model="a", kind="svm", *, predictions=None, parameters=10, **changes):
    predictions = predictions or fake_predictions(DIGITS, 12, 0.8, seed=0)
    return Run(model, kind, None, predictions, changes.get("history"), parameters, changes.get("seconds", 1.0))


def table(*runs):
    return build_leaderboard(runs, PARAMS.compare, seed=1)


def confident(predictions, factor):
    """The same predicted classes with sharper or flatter probabilities."""
    probabilities = predictions.probabilities**factor
    return dataclasses.replace(predictions, probabilities=probabilities / probabilities.sum(axis=1, keepdims=True))


@pytest.fixture
def reports(tmp_path):
    write_reports(tmp_path, PARAMS, per_class=12)
    return tmp_path


def read(reports):
    return read_runs(PARAMS, reports / "runs", reports / "history")


class TestLeaderboard:
    def test_figures_are_those_of_the_predictions(self, reports):
        frame = table(*read(reports))
        assert tuple(frame.columns) == COLUMNS
        for run in read(reports):
            row = frame.set_index("model").loc[run.model]
            for split, prefix in (("validation", "val"), ("test", "test")):
                for metric, value in classification_metrics(*run.predictions.split(split)).items():
                    assert row[f"{prefix}_{metric}"] == value
                assert row[f"{prefix}_accuracy_low"] < row[f"{prefix}_accuracy"] < row[f"{prefix}_accuracy_high"]
                assert row[f"n_{split}"] == 120
            assert (row["parameters"], row["train_seconds"]) == (run.parameters, run.train_seconds)

    def test_backbones_and_kinds_come_from_the_params(self, reports):
        frame = table(*read(reports)).set_index("model")
        assert frame["kind"].to_dict() == PARAMS.models()
        assert frame["backbone"].dropna().to_dict() == {
            "vgg16": "vgg16",
            "vgg16-svm": "vgg16",
            "resnet50": "resnet50",
            "resnet50-svm": "resnet50",
        }

    def test_validation_alone_chooses_the_champion(self):
        good, bad = fake_predictions(DIGITS, 12, 0.95, seed=1), fake_predictions(DIGITS, 12, 0.6, seed=2)
        is_test = (good.rows["split"] == "test").to_numpy()[:, None]
        crossed = [
            dataclasses.replace(good, probabilities=np.where(is_test, first.probabilities, second.probabilities))
            for first, second in ((good, bad), (bad, good))
        ]
        frame = table(made_up("good_on_test", predictions=crossed[0]), made_up("good_on_val", predictions=crossed[1]))
        assert frame["model"].tolist() == ["good_on_val", "good_on_test"]
        assert frame["champion"].tolist() == [True, False]
        assert frame["test_accuracy"].is_monotonic_increasing

    def test_ties_go_to_log_loss_then_parameters_then_name(self):
        plain = fake_predictions(DIGITS, 12, 1.0, seed=0)
        runs = [
            made_up("z", predictions=plain, parameters=5),
            made_up("c", predictions=plain),
            made_up("b", predictions=plain),
            made_up("sharp", predictions=confident(plain, 2), parameters=99),
        ]
        assert table(*runs)["model"].tolist() == ["sharp", "z", "b", "c"]

    def test_without_test_images_the_test_figures_are_null(self):
        frame = table(made_up(predictions=fake_predictions(DIGITS, 12, 0.8, seed=0, test=False)))
        (record,) = leaderboard.as_records(frame)
        assert [record[name] for name in COLUMNS if name.startswith("test_")] == [None] * 5
        assert (record["n_test"], record["n_validation"]) == (0, 120)
        assert leaderboard.metrics_by_model(frame) == {"a": {}}
        assert leaderboard.final_split(frame) == ("validation", "val")
        assert "test accuracy" not in text.to_text(frame)
        assert "of 120 validation images" in text.summary(frame)

    def test_records_survive_json_to_the_last_digit(self, reports):
        frame = table(*read(reports))
        records = json.loads(json.dumps(leaderboard.as_records(frame), allow_nan=False))
        assert [list(record) for record in records] == [list(COLUMNS)] * len(frame)
        assert [record["val_log_loss"] for record in records] == frame["val_log_loss"].tolist()
        assert {record["model"]: record["backbone"] for record in records}["cnn"] is None
        assert all(type(record["champion"]) is bool and type(record["parameters"]) is int for record in records)

    def test_champions_predictions_are_named_pairs_of_the_test_images(self, reports):
        runs = read(reports)
        frame = table(*runs)
        pairs = leaderboard.champion_predictions(frame, runs)
        assert len(pairs) == 120
        assert (pairs["actual"] == pairs["predicted"]).mean() == frame["test_accuracy"].iloc[0]
        assert set(pairs["actual"]) == set(DIGITS)


class TestReading:
    def test_runs_that_the_params_do_not_list_are_ignored(self, reports):
        write_run(reports, "retired", "baseline", fake_predictions(DIGITS, 2, 1.0, seed=0))
        assert [run.model for run in read(reports)] == list(PARAMS.models())

    def test_a_missing_run_is_named(self, tmp_path):
        write_reports(tmp_path, fake_params(1), per_class=2)
        with pytest.raises(ArtifactError, match=r"runs lacks the runs of resnet50, resnet50-svm; `dvc repro`"):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda p: dataclasses.replace(p, rows=p.rows.iloc[::-1], probabilities=p.probabilities[::-1]), "images"),
            (lambda p: dataclasses.replace(p, rows=p.rows.iloc[1:], probabilities=p.probabilities[1:]), "images"),
            (lambda p: dataclasses.replace(p, classes=(*p.classes[:-1], "ten")), "classes"),
        ],
        ids=["order", "number", "classes"],
    )
    def test_models_measured_on_something_else_are_named(self, reports, change, complaint):
        other = fake_predictions(DIGITS, 12, 0.8, seed=5)
        rows = (
            other.rows.assign(label=other.rows["label"].replace("9", "ten")) if complaint == "classes" else other.rows
        )
        write_run(reports, "vgg16-svm", "svm", change(dataclasses.replace(other, rows=rows)))
        with pytest.raises(ArtifactError, match=f"the same {complaint}.* others than cnn's from vgg16-svm$"):
            read(reports)

    def test_predictions_without_a_validation_image_choose_no_champion(self, tmp_path):
        write_reports(tmp_path, PARAMS, per_class=2)
        for model, kind in PARAMS.models().items():
            full = fake_predictions(DIGITS, 2, 0.8, seed=0)
            only = (full.rows["split"] == "test").to_numpy()
            tests = dataclasses.replace(full, rows=full.rows[only], probabilities=full.probabilities[only])
            write_run(tmp_path, model, kind, tests)
        with pytest.raises(ArtifactError, match="cnn predicted no validation image"):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("file", "content", "complaint"),
        [
            ("runs/cnn/summary.json", "{}", "summary.json must give parameters as a number, received {}"),
            ("runs/cnn/summary.json", '{"parameters": "many"}', "must give parameters as a number"),
            ("runs/cnn/timings.json", "[]", "timings.json must give train_seconds as a number"),
            ("history/cnn.csv", "epoch,loss\n1,2\n", r"cnn.csv must have the columns \['epoch', 'phase'"),
            ("history/cnn.csv", "epoch,phase,loss,accuracy,val_loss,val_accuracy\n", "list at least one epoch"),
            ("history/cnn.csv", "", "cnn.csv is not a readable CSV file"),
        ],
    )
    def test_a_damaged_file_is_named(self, reports, file, content, complaint):
        (reports / file).write_text(content)
        with pytest.raises(ArtifactError, match=complaint):
            read(reports)

    def test_a_network_without_a_history_is_refused(self, reports):
        (reports / "history" / "vgg16.csv").unlink()
        with pytest.raises(ArtifactError, match=r"vgg16.csv is missing"):
            read(reports)


class TestText:
    def test_numbers_as_people_read_them(self):
        assert text.percent(0.9361) == "93.6 %"
        assert text.interval(0.906, 0.9583) == "90.6–95.8 %"
        assert [text.duration(s) for s in (0.04, 4.24, 9.96, 42.4, 119.4, 200)] == [
            "0.0 s",
            "4.2 s",
            "10 s",
            "42 s",
            "119 s",
            "3 min 20 s",
        ]

    def test_markdown_is_one_table_with_every_model(self, reports):
        frame = table(*read(reports))
        lines = text.to_markdown(frame, 0.95).splitlines()
        assert lines[0] == "120 validation and 120 test images; accuracies with 95 % intervals."
        assert {line.count("|") for line in lines[2:]} == {len(text.readable(frame).columns) + 1}
        assert [line.split(" | ")[0].removeprefix("| ") for line in lines[4:]] == frame["model"].tolist()

    def test_terminal_table_is_aligned(self, reports):
        lines = text.to_text(table(*read(reports))).splitlines()
        assert len({len(line) for line in lines}) == 1
        assert sum("champion" in line for line in lines) == 2  # the heading and the one model


class TestFigures:
    def test_equal_inputs_give_equal_bytes(self, reports):
        runs = read(reports)
        assert figures.draw(table(*runs), runs) == figures.draw(table(*runs), runs)

    def test_every_model_has_a_matrix_and_every_network_curves(self, reports):
        runs = read(reports)
        networks = {"cnn", "vgg16", "resnet50"}
        assert set(figures.draw(table(*runs), runs)) == (
            {"overview.svg"}
            | {f"{run.model}/confusion.svg" for run in runs}
            | {f"{model}/curves.svg" for model in networks}
        )

    def test_small_matrices_have_numbers_and_large_ones_do_not(self):
        for classes, numbered in ((4, True), (100, False)):
            names = [f"c{number}" for number in range(classes)]
            drawn = words(figures.confusion_matrix(np.eye(classes, dtype=int) * 777, names, "m"))
            assert ("777" in drawn) == numbered
            assert sum(word.startswith("c") for word in drawn) <= 2 * figures.NAMED_CLASSES

    def test_rows_are_actual_classes(self):
        drawn = figures.confusion_matrix(np.array([[0, 5], [0, 0]]), ["first", "second"], "m")
        five = next(e for e in ElementTree.fromstring(drawn).iter() if e.tag.endswith("text") and e.text == "5")
        x, y = float(five.get("x")), float(five.get("y"))
        assert x > 160 > y  # right column, upper row, in a drawing of 324 units

    def test_class_names_are_shown_as_they_are(self):
        names = ["$5 & <b>", "蜂", "x" * 40]
        drawn = words(figures.confusion_matrix(np.eye(3, dtype=int), names, "m"))
        assert {"$5 & <b>", "蜂", "x" * 13 + "…"} <= set(drawn)

    def test_a_new_phase_is_marked_where_it_begins(self):
        two = figures.learning_curves(fake_history({"frozen": 3, "unfrozen": 2}, 0), "finetune", "c")
        one = figures.learning_curves(fake_history({"train": 5}, 0), "baseline", "c")
        assert "unfrozen" in words(two)
        assert not {"frozen", "train"} & {*words(two), *words(one)}

    def test_a_history_of_one_epoch_can_be_drawn(self):
        assert "epoch" in words(figures.learning_curves(fake_history({"train": 1}, 0), "baseline", "c"))

    def test_matplotlibs_global_state_stays_as_it_was(self):
        before = dict(matplotlib.rcParams)
        figures.confusion_matrix(np.eye(2, dtype=int), ["a", "b"], "m")
        assert dict(matplotlib.rcParams) == before


def words(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


class Outline(HTMLParser):
    """What a browser would load, and whether the tags match."""

    VOID = ("meta", "img", "br")

    def __init__(self, markup):
        super().__init__()
        self.open, self.addresses, self.ids, self.tags = [], [], [], []
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            self.ids += [value] if name == "id" else []
            self.addresses += [value] if name in ("src", "href", "xlink:href", "action", "srcset") else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def rendered(reports, params=PARAMS, preview=None):
    runs = read_runs(params, reports / "runs", reports / "history")
    frame = build_leaderboard(runs, params.compare, params.seed)
    data = page.read_data_report(reports / "data", preview)
    return page.render_page(params, frame, figures.draw(frame, runs), data)


class TestPage:
    def test_it_is_well_formed_and_loads_nothing(self, html):
        outline = Outline(html)
        assert outline.open == []
        assert not {"script", "link", "iframe", "object"} & set(outline.tags)
        assert all(address.startswith(("#", "data:")) for address in outline.addresses if address != "data/index.html")
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

    def test_equal_inputs_give_equal_bytes(self, reports, html):
        assert rendered(reports) == html

    def test_the_answer_comes_first_with_interval_and_number(self, reports, html):
        runs = read(reports)
        first = leaderboard.as_records(table(*runs))[0]
        seen = visible(html)
        opening = f"{first['model']} is the champion: {text.percent(first['test_accuracy'])} of 120 test images"
        assert opening in seen
        assert text.interval(first["test_accuracy_low"], first["test_accuracy_high"]) in seen
        assert seen.index(opening) < seen.index("Leaderboard")
        assert len(re.findall(r"\bchampion\b", re.search(r"<tbody>.*?</tbody>", html, re.S)[0])) == 2

    def test_strings_are_escaped(self, tmp_path):
        classes = ("<script>alert(1)</script>", "a & b", "plain")
        write_reports(tmp_path, PARAMS, classes=classes, per_class=4)
        write_data_report(tmp_path, classes, ["<i>odd</i>"])
        html = rendered(tmp_path)
        assert "<script" not in html
        assert "<i>odd" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        assert "a &amp; b" in html

    def test_class_names_that_look_like_numbers_or_nothing_are_kept(self, tmp_path):
        classes = ("007", "1e3", "NA", "")
        write_data_report(tmp_path, classes)
        assert [row[0] for row in page.read_data_report(tmp_path / "data", None).counts] == list(classes)

    def test_counts_are_summed_and_quarantine_reasons_counted(self, reports):
        write_data_report(reports, DIGITS, ["duplicate", "truncated", "duplicate"])
        data = page.read_data_report(reports / "data", None)
        assert data.columns == ["label", "train", "validation", "test", "unused", "quarantined"]
        assert data.totals() == [200, 360, 360, 880, 0]
        assert "3 files quarantined: 2 duplicate, 1 truncated;" in visible(rendered(reports))

    def test_a_preview_is_inlined_where_there_is_one(self, reports):
        image = reports / "augmentation.png"
        assert page.read_data_report(reports / "data", image).preview is None
        image.write_bytes(b"\x89PNG")
        assert "data:image/png;base64,iVBORw==" in rendered(reports, preview=image)

    @pytest.mark.parametrize("file", ["counts.csv", "quarantine.csv"])
    def test_a_missing_or_damaged_table_is_named(self, reports, file):
        path = reports / "data" / file
        path.write_text("class,train\nants,-1\n")
        with pytest.raises(ArtifactError, match=file):
            page.read_data_report(reports / "data", None)
        path.unlink()
        with pytest.raises(ArtifactError, match=f"{file} is missing"):
            page.read_data_report(reports / "data", None)

    def test_without_test_images_it_says_what_that_means(self, tmp_path):
        params = fake_params(1, test="none")
        write_reports(tmp_path, params, per_class=6, test=False)
        seen = visible(rendered(tmp_path, params))
        assert "of 60 validation images recognised" in seen
        assert "There are no test images" in seen
        assert "Test, n =" not in seen

    @pytest.mark.parametrize(
        "params", [fake_params(0), fake_params(1, baseline=False)], ids=["baseline only", "no baseline"]
    )
    def test_a_missing_kind_leaves_no_hole(self, tmp_path, params):
        write_reports(tmp_path, params, per_class=6)
        html = rendered(tmp_path, params)
        assert Outline(html).open == []
        assert html.count("<article") == len(set(params.models().values()))

    def test_the_params_can_be_read_in_it(self, html):
        assert "application: VGG16" in html


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The page of the default reports, rendered once."""
    reports = tmp_path_factory.mktemp("reports")
    write_reports(reports, PARAMS, per_class=12)
    return rendered(reports)


def visible(html):
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body).replace("\u00a0", " "))


def test_intervals_decide_what_is_said_of_the_others():
    rows = [
        {"model": model, "low": low, "high": high}
        for model, low, high in (("best", 0.8, 0.9), ("near", 0.7, 0.8), ("far", 0.5, 0.79), ("over", 0.91, 0.99))
    ]
    assert page.compare_with_champion(rows) == {"overlap": ["near"], "below": ["far"], "above": ["over"]}


def test_the_confusion_of_a_run_counts_each_test_image_once(reports):
    for run in read(reports):
        assert confusion(*run.predictions.split("test")).sum() == 120


def test_no_heavy_or_global_module_is_imported():
    code = (
        "import sys, graft.stages.compare\n"
        "print([m for m in ('tensorflow', 'keras', 'mlflow', 'dvc', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_histories_are_read_as_numbers(reports):
    run = next(run for run in read(reports) if run.model == "vgg16")
    assert run.history is not None
    assert pd.api.types.is_float_dtype(run.history["val_loss"])
    assert run.history["phase"].unique().tolist() == ["frozen", "unfrozen"]
