import json
import re

import pandas as pd
import pytest
from fake_runs import DIGITS, fake_params, fake_predictions, write_reports, write_run
from typer import Typer
from typer.testing import CliRunner

from graft.reporting.leaderboard import COLUMNS
from graft.stages import compare
from graft.storage import ArtifactError

PARAMS = fake_params(1)


def outputs(folder):
    return compare.Outputs(
        leaderboard_json=folder / "leaderboard.json",
        leaderboard_csv=folder / "leaderboard.csv",
        leaderboard_markdown=folder / "leaderboard.md",
        test_metrics=folder / "test",
        confusion=folder / "confusion.csv",
        figures=folder / "figures",
        page=folder / "index.html",
    )


def compared(reports, folder, params=PARAMS):
    return compare.run(
        params,
        runs=reports / "runs",
        history=reports / "history",
        data_report=reports / "data",
        augmentation_preview=None,
        out=outputs(folder),
    )


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def reports(tmp_path):
    write_reports(tmp_path / "in", PARAMS, per_class=12)
    return tmp_path / "in"


def test_everything_is_written_and_nothing_else(reports, tmp_path):
    compared(reports, tmp_path / "out")
    assert set(files(tmp_path / "out")) == {
        "leaderboard.json",
        "leaderboard.csv",
        "leaderboard.md",
        "test/cnn.json",
        "test/vgg16.json",
        "test/vgg16-svm.json",
        "confusion.csv",
        "index.html",
        "figures/overview.svg",
        "figures/cnn/confusion.svg",
        "figures/cnn/curves.svg",
        "figures/vgg16/confusion.svg",
        "figures/vgg16/curves.svg",
        "figures/vgg16-svm/confusion.svg",
    }


def test_files_agree_with_each_other(reports, tmp_path):
    out = tmp_path / "out"
    frame = compared(reports, out)
    records = json.loads((out / "leaderboard.json").read_text())
    assert [list(record) for record in records] == [list(COLUMNS)] * 3
    assert records[0]["champion"] is True
    pd.testing.assert_frame_equal(pd.read_csv(out / "leaderboard.csv"), frame)
    for record in records:
        metrics = json.loads((out / "test" / f"{record['model']}.json").read_text())
        names = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss")
        assert metrics == {f"test_{name}": record[f"test_{name}"] for name in names}
    pairs = pd.read_csv(out / "confusion.csv", dtype=str)
    assert list(pairs.columns) == ["actual", "predicted"]
    assert (pairs["actual"] == pairs["predicted"]).mean() == records[0]["test_accuracy"]


def test_equal_inputs_give_equal_files(reports, tmp_path):
    compared(reports, tmp_path / "one")
    compared(reports, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_removed_model_leaves_the_comparison(reports, tmp_path):
    out = tmp_path / "out"
    compared(reports, out)
    frame = compared(reports, out, fake_params(0))
    assert frame["model"].tolist() == ["cnn"]
    assert not [name for name, content in files(out).items() if "vgg16-svm" in name or b"vgg16-svm/" in content]


def test_a_damaged_run_leaves_what_was_there(reports, tmp_path):
    compared(reports, tmp_path / "out")
    before = files(tmp_path / "out")
    write_run(reports, "vgg16-svm", "svm", fake_predictions(DIGITS, 5, 0.9, seed=0))
    with pytest.raises(ArtifactError, match=r"from vgg16-svm$"):
        compared(reports, tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_it_prints_the_leaderboard_and_closes_with_one_line(reports, tmp_path, capsys):
    frame = compared(reports, tmp_path / "out")
    heading, *rows, closing = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["model", "kind", "champion"]
    assert [row.split()[0] for row in rows] == frame["model"].tolist()
    assert re.fullmatch(
        rf"compare: 3 model\(s\), champion {frame['model'].iloc[0]} with .* 120 test images; .*", closing
    )


def test_without_test_images_validation_takes_their_place(tmp_path):
    params = fake_params(1, test="none")
    write_reports(tmp_path / "in", params, per_class=6, test=False)
    frame = compared(tmp_path / "in", tmp_path / "out", params)
    assert json.loads((tmp_path / "out" / "test" / "cnn.json").read_text()) == {}
    assert json.loads((tmp_path / "out" / "leaderboard.json").read_text())[0]["test_accuracy"] is None
    pairs = pd.read_csv(tmp_path / "out" / "confusion.csv", dtype=str)
    assert (pairs["actual"] == pairs["predicted"]).mean() == frame["val_accuracy"].iloc[0]


def test_the_command_takes_every_path_as_an_option(reports, tmp_path):
    app = Typer()
    app.command()(compare.main)
    (tmp_path / "params.yaml").write_text(json.dumps(PARAMS.model_dump(mode="json")))
    out = tmp_path / "out"
    options = {
        "--params": tmp_path / "params.yaml",
        "--runs": reports / "runs",
        "--history": reports / "history",
        "--data-report": reports / "data",
        "--augmentation-preview": reports / "augmentation.png",
        "--leaderboard-json": out / "leaderboard.json",
        "--leaderboard-csv": out / "leaderboard.csv",
        "--leaderboard-markdown": out / "leaderboard.md",
        "--test-metrics": out / "test",
        "--confusion": out / "confusion.csv",
        "--figures": out / "figures",
        "--page": out / "index.html",
    }
    result = CliRunner().invoke(app, [str(part) for pair in options.items() for part in pair])
    assert result.exit_code == 0, result.output
    compared(reports, tmp_path / "called")
    assert files(out) == files(tmp_path / "called")
