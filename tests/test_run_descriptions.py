import json
from dataclasses import replace

import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft.run_descriptions import describe_run

MEASURED = {
    **{"verdict": "not distinguishable", "rank": 2, "of": 9, "repeats": 1, "n_validation": 359, "n_test": 1359},
    **{"val_accuracy": 0.9554, "val_accuracy_low": 0.929, "val_accuracy_high": 0.9723},
    **{"test_accuracy": 0.9666, "test_accuracy_low": 0.9423, "test_accuracy_high": 0.9808, "parameters": 357482},
    **{"difference": -0.0056, "difference_low": -0.0274, "difference_high": 0.0164, "p_adjusted": 0.7905},
}


@pytest.fixture
def params():
    return fake_params(1)


@pytest.fixture
def models(tmp_path, params, monkeypatch):
    """As the pipeline left them, with a row of the leaderboard that says more than the fake one."""
    for name in ("DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    fake.finished_project(tmp_path, params, "vgg16")
    return {model.name: replace(model, row=MEASURED) for model in fake.trained(tmp_path, params)}


def test_a_fine_tuned_network_is_told_of_as_a_whole(models):
    assert describe_run(models["vgg16"], "0123abc").splitlines() == [
        "**vgg16** is a pretrained network, fine-tuned. Of 1,359 test images it recognises **96.7 %** (94.2–98.1 %). "
        "It is not distinguishable from the champion.",
        "",
        "- **Validation accuracy**: 95.5 % (92.9–97.2 %) of 359 images, by which models are chosen.",
        "- **Test accuracy**: 96.7 % (94.2–98.1 %) of 1,359 images, by which nothing is chosen.",
        "- **Rank**: 2 of 9 by validation accuracy.",
        "- **Against the champion**: +0.6 points on test (−1.6 to +2.7), p = 0.79: not distinguishable.",
        "- **Base**: VGG16, width 0.25, input 32 px; its weights were trained in this project on the source images of "
        "`pretrain` in params.yaml.",
        "- **Cut**: frozen up to `block4_pool`; the top is pooled by `flatten`.",
        "- **Data**: images, without augmentation; seed 1.",
        "- **Training**: 2 epochs of the head on the frozen base at a learning rate of 0.003, then 3 epochs of the "
        "layers after the cut and the head at a learning rate of 0.001; the epoch with the lowest validation loss was "
        "kept; 1.5 s in all.",
        "",
        "```python",
        'model = mlflow.pyfunc.load_model("runs:/0123abc/model")',
        'model.predict(["photo.jpg"])',
        "```",
        "",
        "The whole comparison: artifact `report/index.html`.",
    ]


def test_every_kind_says_what_it_is(models):
    cnn, svm = describe_run(models["cnn"]), describe_run(models["vgg16-svm"])
    assert cnn.startswith("**cnn** is a network trained from scratch.")
    assert "- **Network**: input 32 px, 357,482 parameters." in cnn
    assert svm.startswith("**vgg16-svm** is a support vector machine on the features of a frozen pretrained network.")
    assert "- **Features**: the top of the frozen base, pooled by `flatten`." in svm
    header = models["vgg16-svm"].journal.header
    header["params"]["features"] |= {"svm_layers": ["block3_pool", "top"], "svm_pooling": "max"}
    told = "- **Features**: the top of the frozen base, pooled by `flatten`; `block3_pool`, pooled by `max`."
    assert told in describe_run(models["vgg16-svm"])
    assert "Kernel and C were chosen by cross-validation on the training images; 1.5 s in all." in svm
    assert "epochs" not in svm


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("champion", "(94.2–98.1 %). Validation chose it as the champion of its comparison."),
        ("worse", "(94.2–98.1 %). It is worse than the champion."),
        ("better", "(94.2–98.1 %). It is better than the champion."),
        (None, "(94.2–98.1 %)."),
    ],
)
def test_the_first_paragraph_ends_with_the_verdict(models, verdict, said):
    text = describe_run(replace(models["cnn"], row=MEASURED | {"verdict": verdict}))
    begins = "**cnn** is a network trained from scratch. Of 1,359 test images it recognises **96.7 %** "
    assert text.split("\n\n")[0] == begins + said
    assert ("make predict" in text) == (verdict == "champion")


def test_without_test_images_validation_is_quoted(models):
    row = MEASURED | {"n_test": 0, "test_accuracy": None, "test_accuracy_low": None, "test_accuracy_high": None}
    text = describe_run(replace(models["cnn"], row=row))
    assert "Of 359 validation images it recognises **95.5 %** (92.9–97.2 %)." in text
    assert "points on validation" in text
    assert "Test accuracy" not in text


def test_repeated_trainings_are_told_of_by_their_mean(models):
    row = MEASURED | {
        **{"repeats": 3, "test_accuracy_mean": 0.951, "test_accuracy_mean_low": 0.9, "test_accuracy_mean_high": 0.99},
    }
    said = "- **3 trainings** from different seeds: 95.1 % on test on average (90.0–99.0 %); the first of them is this"
    assert said in describe_run(replace(models["cnn"], row=row))
    same = row | {"test_accuracy_mean_low": None, "test_accuracy_mean_high": None}
    assert "95.1 % on test on average (no interval)" in describe_run(replace(models["cnn"], row=same))


def test_a_small_p_value_and_no_difference_are_written_as_such(models):
    row = MEASURED | {"p_adjusted": 0.0001, "difference": 0.0001}
    assert "0.0 points on test (−1.6 to +2.7), p < 0.001" in describe_run(replace(models["cnn"], row=row))
    assert "p = 0.077" in describe_run(replace(models["cnn"], row=MEASURED | {"p_adjusted": 0.0766}))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("imagenet", "its weights were trained on ImageNet, as distributed with Keras."),
        ("random", "its weights were drawn at random."),
        ("bases/mine.weights.h5", "its weights were read from the file `bases/mine.weights.h5`."),
    ],
)
def test_the_origin_of_the_weights_is_named(tmp_path, params, models, weights, said):
    header = json.loads(json.dumps(models["vgg16"].journal.header))
    header["params"]["base"]["weights"] = weights
    model = replace(models["vgg16"], journal=replace(models["vgg16"].journal, header=header))
    assert said in describe_run(model)


def test_a_grid_is_told_of_with_what_it_chose(tmp_path, params, models):
    fake.train(tmp_path, params, "vgg16", candidates=fake.grid(4))
    model = next(model for model in fake.trained(tmp_path, params) if model.name == "vgg16")
    text = describe_run(model)
    assert "2 epochs of the head on the frozen base at a learning rate of 0.25" in text
    assert "validation chose among 4 candidates, which are the runs under this one" in text


def test_what_a_row_does_not_say_is_left_out(models):
    text = describe_run(replace(models["cnn"], row={"model": "cnn"}, report=None))
    assert text.startswith("**cnn** is a network trained from scratch.\n\n- **Network**: input 32 px.\n")
    assert "report" not in text
    assert "None" not in text
