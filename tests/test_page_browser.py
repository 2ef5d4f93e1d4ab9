"""The page in a browser: what sorting does, and whether it fits, loads nothing and prints."""

import pytest
from browsers import chromium
from fake_comparison import fake_comparison
from fake_runs import DIGITS, fake_params, write_data_report

from graft.reporting import figures, leaderboard, page

pytestmark = pytest.mark.browser

PARAMS = fake_params(4)


@pytest.fixture(scope="module")
def comparison():
    return fake_comparison(PARAMS)


@pytest.fixture(scope="module")
def address(tmp_path_factory, comparison):
    folder = tmp_path_factory.mktemp("reports")
    write_data_report(folder, DIGITS)
    data = page.read_data_report(folder / "data", None)
    file = folder / "index.html"
    file.write_text(page.render_page(PARAMS, comparison, figures.draw(comparison), data), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def tab(browser, address):
    """The open page, and in `faults` what it asked for beside itself and what went wrong."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.faults = []
    opened.on("request", lambda r: opened.faults.append(r.url) if not r.url.startswith(("data:", address)) else None)
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.goto(address)
    yield opened
    opened.close()


def heading(tab, name):
    """The heading of the leaderboard's column."""
    column = tab.locator("table.leaderboard tbody tr").first.evaluate(
        "(row, name) => [...row.cells].findIndex((cell) => cell.dataset.name === name)", name
    )
    return tab.locator(f'table.leaderboard th[data-column="{column}"]')


def models(tab):
    return tab.eval_on_selector_all("table.leaderboard tbody th", "heads => heads.map(head => head.dataset.value)")


@pytest.mark.parametrize(
    ("name", "largest_first"),
    [("test_accuracy", True), ("test_log_loss", False), ("latency_ms", False), ("p_adjusted", True), ("logme", True)],
)
def test_a_click_puts_the_better_values_on_top_and_another_turns_them_round(tab, comparison, name, largest_first):
    tab.locator("label[for=all-columns]").click()
    frame = comparison.frame.assign(place=range(len(comparison.frame)))
    for ascending in (not largest_first, largest_first):
        heading(tab, name).locator("button").click()
        order = frame.sort_values([name, "place"], ascending=[ascending, True], na_position="last")
        assert models(tab) == order["model"].tolist()
        assert heading(tab, name).get_attribute("aria-sort") == ("ascending" if ascending else "descending")


def test_shown_numbers_are_those_of_the_leaderboard_and_stay_with_their_model(tab, comparison):
    heading(tab, "test_accuracy").locator("button").click()
    shown = tab.eval_on_selector_all(
        "table.leaderboard tbody tr",
        "rows => rows.map(row => [row.cells[0].dataset.value, Object.fromEntries([...row.cells].slice(1)"
        ".map(cell => [cell.dataset.name, cell.dataset.value]))])",
    )
    records = {row["model"]: row for row in leaderboard.as_records(comparison.frame)}
    assert len(shown) == len(records)
    for model, values in shown:
        for name, value in values.items():
            expected = records[model][name]
            assert value == ("" if expected is None else expected if name == "verdict" else repr(expected))


def test_text_is_sorted_too_and_by_the_keyboard(tab, comparison):
    tab.locator('table.leaderboard th[data-column="0"] button').focus()
    tab.keyboard.press("Enter")
    assert models(tab) == sorted(comparison.frame["model"])
    tab.keyboard.press("Space")
    assert models(tab) == sorted(comparison.frame["model"], reverse=True)


def test_only_one_column_of_a_table_is_marked_as_sorted(tab):
    heading(tab, "test_accuracy").locator("button").click()
    heading(tab, "latency_ms").locator("button").click()
    assert tab.locator("table.leaderboard th[aria-sort]").count() == 1


def test_all_columns_are_shown_on_demand(tab):
    assert not heading(tab, "test_brier").is_visible()
    tab.locator("label[for=all-columns]").click()
    assert heading(tab, "test_brier").is_visible()
    headings, cells = tab.evaluate(
        "(() => { const t = document.querySelector('table.leaderboard');"
        " return [t.querySelectorAll('th[data-column]').length, t.tBodies[0].rows[0].cells.length] })()"
    )
    assert headings == cells


def test_nothing_is_loaded_and_no_script_fails(tab):
    tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    tab.wait_for_load_state("networkidle")
    assert tab.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 768, 1280, 1920])
def test_it_fits_the_window_in_both_colour_schemes(tab, width, scheme):
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 844})
    tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = tab.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    light = [sum(map(int, colour[4:-1].split(","))) for colour in (ink, paper)]
    assert (light[0] < light[1]) == (scheme == "light")


def test_the_contents_stay_in_view_and_mark_the_section(tab):
    tab.evaluate("document.getElementById('costs').scrollIntoView({behavior: 'instant'})")
    tab.wait_for_selector("nav.contents a[aria-current]")
    assert tab.locator("nav.contents a[aria-current]").inner_text() == "Costs"
    assert tab.locator("nav.contents").bounding_box()["y"] == 0


def test_it_prints_in_dark_ink(tab):
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not tab.locator("nav.contents").is_visible()
    assert tab.pdf(format="A4", print_background=True).startswith(b"%PDF")


def test_without_scripts_it_is_a_plain_table(browser, address, comparison):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(address)
    assert tab.locator("table.leaderboard tbody th").first.inner_text().startswith(comparison.champion.model)
    assert tab.locator("table.leaderboard th button").count() == 0
    tab.locator("label[for=all-columns]").click()
    assert tab.get_by_text("Brier score").first.is_visible()
    context.close()
