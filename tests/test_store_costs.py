import shutil

import pytest

from graft.store_costs import Cost, add_cost, read_cost


def test_costs_add_up_and_are_told_of_any_number_of_rows(tmp_path):
    assert read_cost(tmp_path) is None
    add_cost(tmp_path, 6.0, 30)
    add_cost(tmp_path, 2.0, 10)
    assert read_cost(tmp_path) == Cost(8.0, 40)
    assert read_cost(tmp_path).of(5) == pytest.approx(1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["cost.json"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"seconds": "x", "rows": 1}', '{"seconds": 1.0, "rows": 0}'])
def test_a_damaged_record_is_no_record_and_is_replaced(tmp_path, text):
    (tmp_path / "cost.json").write_text(text)
    assert read_cost(tmp_path) is None
    add_cost(tmp_path, 1.5, 3)
    assert read_cost(tmp_path) == Cost(1.5, 3)


def test_a_folder_that_somebody_deleted_stays_deleted(tmp_path):
    shutil.rmtree(tmp_path)
    add_cost(tmp_path, 1.0, 1)
    assert not tmp_path.exists()
    tmp_path.mkdir()
