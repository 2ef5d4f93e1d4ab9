import math

import fake_tracked as fake
import numpy as np
import pytest

from graft.candidate_records import best_epoch, checked_candidate, checked_repeat
from graft.storage import ArtifactError

HEAD = fake.grid(1)[0]


REPEAT = {"name": "repeat-02", "seed": 1001, "history": HEAD["history"], "metrics": {"val_accuracy": 0.75}}


def with_epoch(**changes):
    first, *others = HEAD["history"]
    return {**HEAD, "history": [{**first, **changes}, *others]}


def test_a_candidate_comes_back_unchanged():
    assert checked_candidate(HEAD, "here") == HEAD


def test_numbers_of_numpy_become_plain_ones():
    (first, *_) = checked_candidate(with_epoch(loss=np.float32(0.5), val_loss=np.float64(0.25)), "here")["history"]
    assert [(type(first[name]), first[name]) for name in ("loss", "val_loss")] == [(float, 0.5), (float, 0.25)]


def test_a_candidate_may_have_been_stopped_before_its_first_epoch_ended():
    assert checked_candidate({**HEAD, "history": []}, "here")["history"] == []


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**HEAD, "name": ""}, r"^here: name: .*at least 1 character, received ''$"),
        ({**HEAD, "rank": 3}, r"^here: rank: Extra inputs are not permitted, received '3'$"),
        ({**HEAD, "params": [1]}, r"^here: params: .*dictionary, received '\[1\]'$"),
        ({**HEAD, "history": None}, r"^here: history: .*list, received 'None'$"),
        ({**HEAD, "chosen": "yes"}, r"^here: chosen: .*boolean, received 'yes'$"),
        (with_epoch(val_loss=math.nan), r"^here: history.0.val_loss: .*finite number, received 'nan'$"),
        (with_epoch(loss=math.inf), r"^here: history.0.loss: .*finite number, received 'inf'$"),
        (with_epoch(accuracy="0.5"), r"^here: history.0.accuracy: .*valid number, received '0.5'$"),
        (with_epoch(epoch=0), r"^here: history.0.epoch: .*greater than or equal to 1, received '0'$"),
        (with_epoch(epoch=2), r"^here: history: epochs must ascend, received 2 after 2$"),
        ({**HEAD, "history": [{"epoch": 1}]}, r"^here: history.0.phase: Field required$"),
    ],
)
def test_what_is_wrong_with_a_record_is_named(record, message):
    with pytest.raises(ArtifactError, match=message):
        checked_candidate(record, "here")


def test_a_repeat_comes_back_unchanged_also_without_epochs():
    assert checked_repeat(REPEAT, "here") == REPEAT
    assert checked_repeat({**REPEAT, "history": []}, "here")["history"] == []


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**REPEAT, "seed": -1}, r"^here: seed: .*greater than or equal to 0, received '-1'$"),
        ({**REPEAT, "phase": "frozen"}, r"^here: phase: Extra inputs are not permitted, received 'frozen'$"),
        ({**REPEAT, "metrics": {"val_loss": math.nan}}, r"^here: metrics.val_loss: .*finite number, received 'nan'$"),
        ({**REPEAT, "history": HEAD["history"][::-1]}, r"^here: history: epochs must ascend, received 2 after 3$"),
        (7, r"^here: expected name, seed, history, metrics, received '7'$"),
    ],
)
def test_what_is_wrong_with_a_repeat_is_named(record, message):
    with pytest.raises(ArtifactError, match=message):
        checked_repeat(record, "here")


def test_a_record_that_is_no_mapping_is_refused():
    with pytest.raises(
        ArtifactError, match=r"^here: expected name, phase, params, history, chosen, received \"\['head-01'\]\"$"
    ):
        checked_candidate(["head-01"], "here")


def test_the_best_epoch_has_the_lowest_validation_loss_and_is_the_first_of_equals():
    losses = {1: 0.5, 2: 0.25, 3: 0.75, 4: 0.25}
    history = [{"epoch": epoch, "val_loss": loss} for epoch, loss in losses.items()]
    assert best_epoch(history)["epoch"] == 2
    assert best_epoch([]) == {}
