import json
import re

import pandas as pd
import pytest
from fake_reports import fake_params, replace_manifest, write_reports
from typer import Typer
from typer.testing import CliRunner

from graft.artifacts import Manifest, read_manifest
from graft.curve_files import write_curve
from graft.reporting.gathering import Inputs
from graft.reporting.leaderboard import COLUMNS
from graft.stages import compare
from graft.storage import ArtifactError, read_json, write_table

PARAMS = fake_params(1)


def outputs(folder):
    return compare.Outputs(
        leaderboard=folder / "leaderboard",
        test_metrics=folder / "test",
        tables=folder / "tables",
        figures=folder / "figures",
        plots=folder / "plots",
        model_card=folder / "model_card",
        page=folder / "index.html",
    )


def inputs(folder):
    return Inputs(folder / "prepared", folder / "data", folder / "runs", folder / "history", folder / "rows")


def compared(reports, folder, params=PARAMS):
    return compare.run(params, inputs(reports), augmentation_preview=None, out=outputs(folder))


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    write_reports(folder, PARAMS, per_class=12)
    return folder


def test_every_file_is_written(reports, tmp_path):
    compared(reports, tmp_path / "out")
    assert set(files(tmp_path / "out")) >= {
        *("leaderboard.json", "leaderboard.csv", "leaderboard.md", "index.html", "model_card.json", "model_card.md"),
        *("test/cnn.json", "test/vgg16.json", "test/vgg16-svm.json"),
        *("tables/classes.csv", "tables/slices.csv", "tables/suspects.csv"),
        *("figures/overview.svg", "figures/cnn/confusion.svg", "figures/cnn/curves.svg", "figures/vgg16/curves.svg"),
    }
    assert not [name for name in files(tmp_path / "out") if "partial" in name]


def test_files_agree_with_each_other(reports, tmp_path):
    out = tmp_path / "out"
    frame = compared(reports, out).frame
    records = read_json(out / "leaderboard.json")
    assert [list(record) for record in records] == [list(COLUMNS)] * 3
    assert records[0]["champion"] is True
    pd.testing.assert_frame_equal(pd.read_csv(out / "leaderboard.csv"), frame, check_dtype=False)
    for record in records:
        metrics = read_json(out / "test" / f"{record['model']}.json")
        assert metrics["test_accuracy"] == record["test_accuracy"]
        assert metrics == {name: record[name] for name in metrics}
    card = (out / "model_card.md").read_text()
    assert records[0]["model"] in card.splitlines()[0]
    classes = pd.read_csv(out / "tables/classes.csv", dtype={"label": str})
    assert classes.groupby("model")["n"].sum().tolist() == [120] * 3


def test_equal_inputs_give_equal_files(reports, tmp_path):
    compared(reports, tmp_path / "one")
    compared(reports, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_removed_model_leaves_the_comparison(reports, tmp_path):
    out = tmp_path / "out"
    compared(reports, out)
    assert compared(reports, out, fake_params(0)).frame["model"].tolist() == ["cnn"]
    assert not [name for name, content in files(out).items() if "vgg16-svm" in name or b"vgg16-svm/" in content]


def test_a_damaged_run_leaves_what_was_there(tmp_path):
    write_reports(tmp_path / "in", PARAMS, per_class=12)
    compared(tmp_path / "in", tmp_path / "out")
    before = files(tmp_path / "out")
    predictions = tmp_path / "in/runs/vgg16-svm/predictions.parquet"
    write_table(predictions, pd.read_parquet(predictions)[::-1])
    with pytest.raises(ArtifactError, match=r"vgg16-svm/predictions.parquet: row 0 must be"):
        compared(tmp_path / "in", tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_predictions_of_other_images_than_the_prepared_ones_are_refused(tmp_path):
    write_reports(tmp_path / "in", PARAMS, per_class=12)
    manifest = tmp_path / "in/prepared/manifest.parquet"
    frame = pd.read_parquet(manifest)
    frame.loc[frame.index[-1], "image_id"] = "another"
    write_table(manifest, frame)
    attributes = tmp_path / "in/data/attributes.parquet"
    write_table(attributes, pd.read_parquet(attributes).assign(image_id=frame["image_id"].to_numpy()))
    with pytest.raises(ArtifactError, match=r"cnn/predictions.parquet: row 239 must be .*'another'"):
        compared(tmp_path / "in", tmp_path / "out")


def test_it_prints_the_leaderboard_and_closes_with_one_line(reports, tmp_path, capsys):
    frame = compared(reports, tmp_path / "out").frame
    heading, *rows, closing = capsys.readouterr().out.splitlines()
    assert heading.split()[:5] == ["model", "kind", "against", "the", "champion"]
    assert [row.split()[0] for row in rows] == frame["model"].tolist()
    assert re.fullmatch(
        rf"compare: 3 model\(s\), champion {frame['model'].iloc[0]} with .* 120 test images; .*", closing
    )


def test_without_test_images_validation_takes_their_place(tmp_path):
    params = fake_params(1, test="none")
    write_reports(tmp_path / "in", params, per_class=6, test=False)
    comparison = compared(tmp_path / "in", tmp_path / "out", params)
    assert read_json(tmp_path / "out/test/cnn.json") == {}
    assert read_json(tmp_path / "out/leaderboard.json")[0]["test_accuracy"] is None
    assert comparison.classes["n"].sum() == 3 * 60
    assert set(comparison.frame["verdict"]) <= {"champion", "not distinguishable", "worse", "better"}


def test_the_command_takes_every_path_as_an_option(reports, tmp_path):
    app = Typer()
    app.command()(compare.main)
    (tmp_path / "params.yaml").write_text(json.dumps(PARAMS.model_dump(mode="json")))
    out = tmp_path / "out"
    options = {
        "--params": tmp_path / "params.yaml",
        "--prepared": reports / "prepared",
        "--runs": reports / "runs",
        "--history": reports / "history",
        "--rows": reports / "rows",
        "--data-report": reports / "data",
        "--leaderboard": out / "leaderboard",
        "--test-metrics": out / "test",
        "--tables": out / "tables",
        "--figures": out / "figures",
        "--plots": out / "plots",
        "--model-card": out / "model_card",
        "--page": out / "index.html",
    }
    result = CliRunner().invoke(app, [str(part) for pair in options.items() for part in pair])
    assert result.exit_code == 0, result.output
    compared(reports, tmp_path / "called")
    assert files(out) == files(tmp_path / "called")


def test_what_has_no_interval_is_said_to_have_none(tmp_path):
    """A calibration error of one group alone, and accuracies of one training."""
    write_reports(tmp_path / "in", PARAMS, per_class=3)
    manifest = read_manifest(tmp_path / "in/prepared")
    rows = manifest.rows.assign(group=manifest.rows["split"])
    replace_manifest(tmp_path / "in", Manifest(rows, manifest.classes))
    held_out = rows.loc[rows["split"] != "train", ["split", "image_id", "label"]]
    for name, kind in (("cnn", "baseline"), ("vgg16", "frozen")):
        fit = {"kind": kind, "per_class": 5, "seed": 1}
        facts = pd.DataFrame([fit | {"images": 50, "epochs": 3, "seconds": 1.5}])
        write_curve(tmp_path / "in/rows" / name / "curve", held_out.assign(**fit, predicted=held_out["label"]), facts)
    curve = PARAMS.curve.model_copy(update={"backbones": ["vgg16"], "baselines": ["cnn"], "seeds": 1})
    compared(tmp_path / "in", tmp_path / "out", PARAMS.model_copy(update={"curve": curve}))
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("no\u00a0interval") >= 3
