"""What people see in MLflow's pages of a project that ran: its models, their curves, and each one's story."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from browsers import chromium
from logged_content import model_runs
from real_server import RealServer
from tiny_project import MODELS, finished_project

from graft.mlflow_server import MlflowClient
from graft.runs_page import runs_page

if TYPE_CHECKING:
    from mlflow.entities import Run
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PATIENCE = 60_000  # ms for a page on a loaded machine
CURVE = "epoch/val_accuracy"
# Who is logged in is asked of every server; only one with logins answers.
HARMLESS = ("/users/current", "ResizeObserver loop", "/telemetry", "404 (Not Found)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server that was told of a project's runs."""
    folder = tmp_path_factory.mktemp("seen")
    project, _ = finished_project(tmp_path_factory.getbasetemp(), folder / "project")
    with RealServer(folder / "server") as running:
        project.told(running.uri).graft("track")
        yield running


@pytest.fixture(scope="module")
def runs(server: RealServer) -> dict[str, Run]:
    """By model."""
    return {str(run.info.run_name): run for run in model_runs(server.uri).values()}


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A window that has no errors when it is closed."""
    opened, faults = browser.new_page(viewport={"width": 1900, "height": 1000}), []
    opened.set_default_timeout(PATIENCE)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("response", lambda answer: faults.append(answer.url) if answer.status >= 400 else None)
    yield opened
    opened.close()
    assert [fault for fault in faults if not any(known in fault for known in HARMLESS)] == []


def open_runs(tab: Page, server: RealServer, runs: dict[str, Run]) -> None:
    """The table of the experiment's runs."""
    experiment = next(iter(runs.values())).info.experiment_id
    tab.goto(f"{server.uri}/#/experiments/{experiment}/runs?workflowType=machine_learning")
    for name in MODELS:
        tab.get_by_role("link", name=name, exact=True).first.wait_for()


def open_run(tab: Page, server: RealServer, run: Run, page: str = "") -> None:
    tab.goto(f"{server.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}{page}")
    tab.get_by_role("heading", name=run.info.run_name).first.wait_for()


def row(tab: Page, run: Run) -> Locator:
    """The parts of a run's row in the table, of which the grid makes several."""
    return tab.locator(f'[role=row][row-id="{run.info.run_id}"]')


def test_the_page_that_graft_ui_names_lists_every_model_with_its_metrics_the_best_on_top(
    tab: Page, server: RealServer, runs: dict[str, Run]
) -> None:
    tab.goto(server.uri + runs_page(MlflowClient(server.uri), "graft"))
    for name in MODELS:
        for metric in ("val_accuracy", "test_accuracy"):
            cell = row(tab, runs[name]).locator(f'[role=gridcell][col-id="metrics.`{metric}`"]')
            cell.wait_for()
            assert float(cell.inner_text()) == pytest.approx(runs[name].data.metrics[metric])
    names = {run.info.run_id: name for name, run in runs.items()}
    rows = tab.locator("[role=row][row-id]").all()
    places = {names[str(one.get_attribute("row-id"))]: int(one.get_attribute("row-index") or 0) for one in rows}
    best_first = sorted(runs, key=lambda name: -runs[name].data.metrics["val_accuracy"])
    figures = {runs[name].data.metrics["val_accuracy"] for name in runs}
    assert len(figures) < len(runs) or sorted(places, key=lambda name: places[name]) == best_first


def test_two_runs_that_are_compared_show_both_curves(tab: Page, server: RealServer, runs: dict[str, Run]) -> None:
    open_runs(tab, server, runs)
    for name in MODELS:
        row(tab, runs[name]).locator("[type=checkbox]").first.click()
    tab.get_by_role("button", name="Compare").click()
    tab.wait_for_url("**/compare-runs?**")
    for name in MODELS:
        tab.get_by_role("cell", name=name, exact=True).first.wait_for()
    tab.get_by_role("link", name=CURVE, exact=True).click()
    for name in MODELS:
        tab.get_by_text(f"{name} ({CURVE})").first.wait_for()
    lines = tab.locator(".scatterlayer .trace path.js-line")
    lines.nth(len(MODELS) - 1).wait_for(state="attached")
    paths = {line.get_attribute("d") or "" for line in lines.all()}  # each drawn twice, the second fat and unseen
    assert len(paths) == len(MODELS)
    assert all(len(re.findall("[ML]", path)) > 1 for path in paths), paths


def test_the_charts_of_the_experiment_draw_the_curve_of_every_model(
    tab: Page, server: RealServer, runs: dict[str, Run]
) -> None:
    open_runs(tab, server, runs)
    tab.goto(f"{tab.url}&compareRunsMode=CHART")
    for name in MODELS:
        tab.get_by_text(f"{name} ({CURVE})").first.wait_for()


def test_a_run_says_what_it_is_and_on_which_data_it_was_trained(
    tab: Page, server: RealServer, runs: dict[str, Run]
) -> None:
    run = runs["small"]
    open_run(tab, server, run)
    assert tab.get_by_text("No description").count() == 0
    sentence = plain_words(run.data.tags["mlflow.note.content"])
    tab.get_by_text(sentence).first.wait_for()
    tab.get_by_text("prepared (").first.wait_for()
    for text in ("val_accuracy", "finished", "baseline@small"):
        tab.get_by_text(re.compile(re.escape(text), re.IGNORECASE)).first.wait_for()


def plain_words(note: str) -> str:
    """The longest stretch of a Markdown text that is shown as it is written."""
    return max(re.split(r"[*_`#|\[\]()<>\n&]", note), key=len).strip()


def test_a_run_shows_how_the_machine_fared_and_its_files(tab: Page, server: RealServer, runs: dict[str, Run]) -> None:
    run = runs["small"]
    open_run(tab, server, run, "/system-metrics")
    tab.get_by_text("cpu_utilization_percentage").first.wait_for()
    open_run(tab, server, run, "/artifacts")
    for file in ("journal.jsonl", "predictions.parquet", "figures", "report"):
        tab.get_by_text(file, exact=True).first.wait_for()
    tab.get_by_text("journal.jsonl", exact=True).first.click()
    tab.get_by_text(str(run.data.tags["graft.key"])[:40]).first.wait_for()


def test_the_registered_model_names_its_champion(tab: Page, server: RealServer) -> None:
    tab.goto(f"{server.uri}/#/models/graft")
    tab.get_by_text("Version 1").first.wait_for()
    tab.get_by_text(re.compile(r"@\s*champion")).first.wait_for()
