from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graft import runtime
from graft.sections import Base
from graft.storage import ArtifactError, read_json, write_json
from graft.weights import load_base, obtain_base, save_base

RANDOM = Base(application="MobileNet", input_size=32, width=0.25, weights="random", depends_on=Path("x"))


def test_a_saved_base_is_loaded_as_it_was_and_its_files_repeat(tmp_path: Path) -> None:
    for name in ("one", "two"):
        runtime.configure(1)
        base = obtain_base(RANDOM)
        (tmp_path / name).mkdir()
        save_base(tmp_path / name, base, {"weights": "random"})
    for file in ("base.json", "base.weights.h5", "card.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    card = read_json(tmp_path / "one" / "card.json")
    assert card["parameters"] == base.count_params()
    loaded = load_base(tmp_path / "one")
    for mine, theirs in zip(loaded.get_weights(), base.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_weights_that_are_not_the_cards_are_refused(tmp_path: Path) -> None:
    save_base(tmp_path, obtain_base(RANDOM), {})
    weights = tmp_path / "base.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"base\.weights\.h5 must have sha256 [0-9a-f]+, received [0-9a-f]+"):
        load_base(tmp_path)
    weights.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        load_base(tmp_path)


def test_an_architecture_that_is_not_the_cards_is_refused(tmp_path: Path) -> None:
    """It would load: the weights fit another activation, too."""
    save_base(tmp_path, obtain_base(RANDOM), {})
    path = tmp_path / "base.json"
    path.write_text(path.read_text().replace("same", "SAME", 1))
    with pytest.raises(ArtifactError, match=r"base\.json must have sha256 [0-9a-f]+, received .*; rerun pretrain"):
        load_base(tmp_path)


@pytest.mark.parametrize("card", [[], {}, {"weights_sha256": 7}], ids=["a list", "empty", "a number"])
def test_a_card_that_gives_no_hash_is_refused(tmp_path: Path, card: object) -> None:
    write_json(tmp_path / "card.json", card)
    with pytest.raises(ArtifactError, match=r"card\.json must give weights_sha256 as text, received"):
        load_base(tmp_path)


def test_the_seed_decides_random_weights() -> None:
    drawn = []
    for seed in (1, 1, 2):
        runtime.configure(seed)
        drawn.append(obtain_base(RANDOM).get_weights()[0])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
