import base64
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import fake_mlflow
import fake_tracked as fake
import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_params
from image_files import encoded, oriented, scene
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny_models import save_machine, save_network, write_facts

from graft.logged_models import log_model  # first: it settles what mlflow reads while it is imported
from graft.mlflow_server import connect
from graft.registry import register_champion
from graft.serving import BATCH, load_classifier

# isort: split
import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

SERVED = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
FILES = {
    "turned.jpg": encoded(scene(1), "JPEG", exif=oriented(6)),
    "transparent.png": encoded(np.dstack([scene(2), np.full((24, 32), 100, np.uint8)]), "PNG"),
    "grey.png": encoded(scene(3)[:, :, 0], "PNG"),
}


def encode(content):
    return base64.b64encode(content).decode()


def logged_project(root, params, champion):
    """A project with one real model, logged and registered; returns its address and the classifier on the disk."""
    fake.finished_project(root, params, champion)
    folder, source = root / "models" / champion, None
    if champion == "vgg16-svm":
        source = root / "models" / "source" / "vgg16"
        save_machine(folder, source)
    else:
        save_network(folder)
    write_facts(folder, temperature=1.5, abstain_below=0.5)
    (model,) = [each for each in fake.trained(root, params) if each.champion]
    uri = fake_mlflow.default_tracking_uri(root)
    client, experiment = connect(uri, params.tracking.experiment, root)
    run = client.create_run(experiment)
    log_model(experiment, run.info.run_id, model, params.serve)
    register_champion(client, run, model, params, root / "data" / "prepared")
    return uri, load_classifier(folder, source)


@pytest.fixture(scope="module", params=["cnn", "vgg16-svm"])
def champion(request, tmp_path_factory):
    """A model of either kind: the address of MLflow, the classifier on the disk, and its project's folder."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(fake_mlflow.empty_database(tmp_path_factory.getbasetemp()), root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield *logged_project(root, fake_params(1), request.param), root


@pytest.fixture(scope="module")
def model(champion):
    mlflow.set_tracking_uri(champion[0])
    return mlflow.pyfunc.load_model("models:/graft@champion")


def probabilities(answers):
    return np.array([list(answer["probabilities"].values()) for answer in answers])


def refusal(model, images):
    with pytest.raises(MlflowException) as caught:
        model.predict(images)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    return caught.value.message


@pytest.mark.slow
def test_base64_paths_and_arrays_get_the_answer_that_the_model_gives_here(champion, model, tmp_path):
    _, classifier, _ = champion
    expected = classifier.classify(list(FILES.values()))
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    answers = model.predict([encode(content) for content in FILES.values()])
    np.testing.assert_allclose(probabilities(answers), expected, atol=1e-5)
    assert [list(answer["probabilities"]) for answer in answers] == [list(fake.CLASSES)] * 3
    assert [answer["class"] for answer in answers] == [fake.CLASSES[row.argmax()] for row in expected]
    assert [answer["abstain"] for answer in answers] == classifier.abstains(expected).tolist()
    assert all(answer["probability"] == max(answer["probabilities"].values()) for answer in answers)

    paths = [str(tmp_path / name) for name in FILES]
    np.testing.assert_allclose(probabilities(model.predict(paths)), expected, atol=1e-5)
    np.testing.assert_allclose(probabilities(model.predict(pd.DataFrame({"image": paths}))), expected, atol=1e-5)
    pixels = [classifier.pixels(content) for content in FILES.values()]
    for arrays in (np.stack(pixels), pixels, [each.tolist() for each in pixels]):
        np.testing.assert_allclose(probabilities(model.predict(arrays)), expected, atol=1e-5)
    picture = scene(7, 50, 30)
    mixed = model.predict([paths[2], picture, encode(encoded(picture, "PNG"))])
    np.testing.assert_allclose(probabilities(mixed)[0], expected[2], atol=1e-5)
    np.testing.assert_allclose(*probabilities(mixed)[1:], atol=1e-5)
    assert model.predict([]) == []


@pytest.mark.slow
def test_one_image_alone_gets_the_answer_it_gets_among_many(champion, model):
    picture = FILES["turned.jpg"]
    many = probabilities(model.predict([encode(picture)] * (BATCH + 3)))
    alone = probabilities(model.predict([encode(picture)]))
    np.testing.assert_allclose(many, np.repeat(alone, BATCH + 3, axis=0), atol=1e-5)


@pytest.mark.slow
def test_a_bad_image_is_refused_in_one_line_that_names_it_and_does_not_repeat_it(model):
    good = encode(FILES["grey.png"])
    message = refusal(model, [good] * (BATCH + 1) + [encode(b"no picture")])
    assert message.startswith(f"image {BATCH + 1}: not-an-image: ")
    assert encode(b"no picture") not in message
    for images in ([good, np.zeros((4, 5, 4), np.uint8)], [good, None], [good, "gone.png"], "no list", {"a": 1}):
        assert "\n" not in refusal(model, images)


@pytest.mark.slow
def test_a_server_reads_no_files_and_tells_nothing_of_them(champion, model, monkeypatch):
    _, _, root = champion
    (root / "there.png").write_bytes(FILES["grey.png"])
    assert model.predict([str(root / "there.png")])
    monkeypatch.setenv(SERVED, "true")  # as the scoring server's init does
    assert refusal(model, [str(root / "there.png")]) == refusal(model, [str(root / "gone.png")])
    assert "a server reads no files" in refusal(model, ["there.png"])
    assert model.predict([encode(FILES["grey.png"])])


@pytest.mark.slow
def test_mlflows_scoring_server_gives_the_same_answers(champion, model, monkeypatch):
    _, classifier, root = champion
    monkeypatch.setenv(SERVED, "true")
    content = FILES["turned.jpg"]
    (root / "there.png").write_bytes(content)

    def post(inputs):
        return scoring_server.invocations(json.dumps({"inputs": inputs}), "application/json", model, None)

    answer = post([encode(content), classifier.pixels(content).tolist()])
    assert answer.status == 200
    given = probabilities(json.loads(answer.response)["predictions"])
    np.testing.assert_allclose(given, np.repeat(classifier.classify([content]), 2, axis=0), atol=1e-5)
    with pytest.raises(MlflowException, match="image 0: not base64, whose letters are"):
        post([str(root / "there.png")])


@pytest.mark.slow
def test_limits_are_logged_with_the_model_and_can_be_changed_when_it_is_loaded(champion, model):
    serve = fake_params(1).serve
    assert model.model_config == serve.model_dump(include={"max_images", "max_image_mb", "max_pixels"})
    image = encode(FILES["turned.jpg"])
    assert refusal(model, [image] * (serve.max_images + 1)) == (
        f"expected at most {serve.max_images} images at once, received {serve.max_images + 1}"
    )
    strict = mlflow.pyfunc.load_model(
        "models:/graft@champion", model_config={"max_images": 2, "max_pixels": 32 * 24 - 1, "max_image_mb": 1e-4}
    )
    assert refusal(strict, [image] * 3) == "expected at most 2 images at once, received 3"
    assert "too-large" in refusal(strict, [image])
    assert "too-large: 32 x 24 px are more than 767 pixels" in refusal(strict, [scene(1)])


@pytest.mark.slow
def test_threads_get_the_answers_that_one_gets_alone(champion, model):
    pictures = [scene(seed, 20 + seed, 15) for seed in range(40)]
    alone = probabilities(model.predict(pictures))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda place: model.predict(pictures[place : place + 1 + place % 3]), range(37)))
    for place, given in enumerate(answers):
        np.testing.assert_allclose(probabilities(given), alone[place : place + 1 + place % 3], atol=1e-5)


ELSEWHERE = """\
import json, sys

class Blocked:
    names = set(json.loads(sys.argv[1]))
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import mlflow
mlflow.set_tracking_uri(sys.argv[2])
model = mlflow.pyfunc.load_model("models:/graft@champion")
answers = [model.predict(json.loads(images)) for images in sys.argv[3:]]
import graft
print(json.dumps([answers, graft.__file__]))
"""


def installed_by(requirements):
    """Names of the distributions that these lines of a requirements file install, directly or through others."""
    installed = {canonicalize_name(each.metadata["Name"]) for each in metadata.distributions()}
    names, waiting = set(), [(Requirement(line), "") for line in requirements]
    while waiting:
        requirement, of_extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        names.add(name)
        for extra in requirement.extras or [""]:
            if (name, extra) not in names:
                names.add((name, extra))
                needed = metadata.requires(name) if name in installed else None
                waiting += [(Requirement(line), extra) for line in needed or []]
    return names


@pytest.mark.slow
def test_the_registered_champion_loads_elsewhere_with_its_requirements_and_without_the_project(champion, tmp_path):
    uri, classifier, root = champion
    expected = classifier.classify(list(FILES.values()))
    logged = next(root.glob("mlartifacts/**/MLmodel")).parent
    there = installed_by((logged / "requirements.txt").read_text().splitlines())
    absent = [
        name
        for name, owners in metadata.packages_distributions().items()
        if name != "graft" and not {canonicalize_name(owner) for owner in owners} & there
    ]
    assert {"dvc", "cv2", "imagehash", "matplotlib"} & set(absent) == {"dvc", "cv2", "imagehash"}  # as a sample
    moved = root / "models"
    moved.rename(root / "away")  # whatever answers now came from the registry
    try:
        images = json.dumps([encode(content) for content in FILES.values()])
        example = (logged / "input_example.json").read_text()
        command = [sys.executable, "-c", ELSEWHERE, json.dumps(absent), uri, images, example]
        environment = {**os.environ, "PYTHONPATH": ""}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    finally:
        (root / "away").rename(moved)
    assert done.returncode == 0, done.stderr
    assert "type hint" not in done.stderr
    (answers, of_example), package = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(probabilities(answers), expected, atol=1e-5)
    assert len(of_example) == 1
    assert "mlartifacts" in package  # the package that was logged with the model


def test_importing_it_imports_neither_mlflow_nor_tensorflow():
    code = "import sys, graft.pyfunc_model; sys.exit(any(name in sys.modules for name in ('mlflow', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
