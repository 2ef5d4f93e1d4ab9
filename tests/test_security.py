"""What holds of the package as a whole: nothing it reads can run code, and nothing it writes shows a secret."""

import ast
import os
import re
import subprocess
import sys

import hostile_files
import mlflow
import numpy as np
import pytest
from real_server import RealServer
from test_mlflow_server import answering
from tiny_project import CHECKOUT, CLOSED, EPOCHS, LONGEST, finished_project

from graft.backbones import file_base
from graft.params import ParamsError, load_params
from graft.provenance import read_provenance
from graft.sections import Base
from graft.shards import Shards, ShardWriter
from graft.storage import ArtifactError

SOURCE = CHECKOUT / "src" / "graft"
CALLS = {  # by what is called, an argument that must be there, and its value; None: whichever
    "np.load": ("allow_pickle", "False"),
    "numpy.load": ("allow_pickle", "False"),
    "load_model": ("safe_mode", "True"),
    "deserialize_keras_object": ("safe_mode", "True"),
    "skops.io.load": ("trusted", None),
}
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "joblib.load", "joblib.dump", "torch.load"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "pd.read_pickle", "pandas.read_pickle", "extractall"),
    *("model_from_json", "enable_unsafe_deserialization", "marshal.loads", "skops.io.loads", "to_pickle"),
}
MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "torch", "_pickle"}
SAFE_LOADERS = {"yaml.CSafeLoader", "yaml.SafeLoader"}
OF_NO_MODEL = {"predicting.load_model", "mlflow.pyfunc.load_model"}  # other functions of this name


def faults(path):
    """What a module must not do, with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{path}:{node.lineno}: imports {name}" for name in names if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from (f"{path}:{node.lineno}: {fault}" for fault in faults_of_call(node))


def faults_of_call(node):
    called = ast.unparse(node.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    last = called.rsplit(".", 1)[-1]
    if called in FORBIDDEN or (last in FORBIDDEN and "." in called and last not in ("compile", "eval")):
        yield f"calls {called}"
    if keywords.get("shell", "False") != "False":
        yield f"{called} runs a shell"
    if called == "yaml.load" and not SAFE_LOADERS & {ast.unparse(argument) for argument in node.args}:
        yield "yaml.load must be given a safe loader"
    if keywords.get("allow_pickle", "False") != "False":
        yield f"{called} allows pickle"
    for name, (argument, value) in CALLS.items():
        applies = called == name or (called.endswith(f".{name}") and called not in OF_NO_MODEL)
        if applies and (argument not in keywords or value not in (None, keywords[argument])):
            yield f"{called} must be given {argument}={value or '...'}"


def test_no_module_reads_what_can_run_code():
    found = [fault for path in sorted(SOURCE.rglob("*.py")) for fault in faults(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from cloudpickle import loads", "import torch", "x = eval(y)", "exec(y)", "os.system(y)"),
        *("np.load(y)", "np.load(y, allow_pickle=True)", "yaml.load(y)", "yaml.load(y, yaml.Loader)", "joblib.load(y)"),
        *("keras.saving.load_model(y)", "keras.models.load_model(y, safe_mode=False)", "archive.extractall(y)"),
        *("skops.io.load(y)", "subprocess.run(y, shell=True)", "pd.read_pickle(y)", "keras.models.model_from_json(y)"),
        "keras.config.enable_unsafe_deserialization()",
    ],
)
def test_the_search_finds_what_it_is_for(tmp_path, line):
    path = tmp_path / "module.py"
    path.write_text(line)
    assert list(faults(path))


def test_rows_that_are_objects_are_refused_wherever_they_are_read(tmp_path):
    with ShardWriter(tmp_path, "images", (4,), np.uint8) as writer:
        writer.append(np.zeros((3, 4), np.uint8))
    (piece,) = (path for path in tmp_path.glob("images-*.npy") if ".crc" not in path.name)
    piece.write_bytes(hostile_files.pickled_array(tmp_path / "touched"))
    with pytest.raises(ArtifactError):
        Shards(tmp_path, "images")[np.arange(3)]
    assert not (tmp_path / "touched").exists()


def test_params_that_would_call_something_are_refused_in_one_line(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(f"seed: !!python/object/apply:os.system ['touch {tmp_path}/touched']\n")
    with pytest.raises(ParamsError, match=r"^.*params\.yaml is not valid YAML: could not determine a constructor .*$"):
        load_params(path)
    assert not (tmp_path / "touched").exists()


def test_a_lock_that_would_call_something_is_refused(tmp_path):
    path = tmp_path / "dvc.lock"
    path.write_text(f"stages: !!python/object/apply:os.system ['touch {tmp_path}/touched']\n")
    with pytest.raises(ArtifactError, match=r"^.*dvc\.lock is not valid YAML: could not determine a constructor .*$"):
        read_provenance(load_params(CHECKOUT / "params.yaml"), tmp_path, path)
    assert not (tmp_path / "touched").exists()


class Stranger(mlflow.pyfunc.PythonModel):
    """A model as anyone logs it: its class is a pickle."""

    def __init__(self, touched):
        self._pickled = hostile_files.Pickled(touched)

    def predict(self, context, model_input: list[str]) -> list[str]:
        """Whatever it was given."""
        return model_input


@pytest.mark.slow
def test_a_logged_model_that_graft_did_not_log_is_not_served(tmp_path):
    (tmp_path / "params.yaml").write_bytes((CHECKOUT / "params.yaml").read_bytes())
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=Stranger(tmp_path / "touched"), pip_requirements=[])
    command = [sys.executable, "-m", "graft.cli", "serve", "--port", "0", "--model", str(tmp_path / "model")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"graft: {tmp_path}/model is refused: expected a model that graft logged, received one of mlflow.pyfunc.model"
    )
    assert not (tmp_path / "touched").exists()


MARK = "m4rk-0f-a-s3cret"
SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": f"{MARK}-1",
    "MLFLOW_TRACKING_USERNAME": "somebody",
    "AWS_SECRET_ACCESS_KEY": f"{MARK}-2",
    "DATABASE_URL": f"postgresql://me:{MARK}-3@db.example/runs",
    "GITHUB_TOKEN": f"{MARK}-4",
}


def with_login(uri):
    """The address with a login in it, which a server without logins takes no notice of."""
    return uri.replace("://", f"://somebody:{MARK}-0@")


def files_with(folder, mark):
    """The files in which it stands, packed ones aside."""
    return [path for path in folder.rglob("*") if path.is_file() and mark in path.read_bytes()]


@pytest.mark.slow
def test_no_secret_of_the_environment_is_printed_kept_or_published(tmp_path_factory, tmp_path):
    project, _ = finished_project(tmp_path_factory.getbasetemp(), tmp_path / "project")
    project.change(EPOCHS, 2)
    with RealServer(tmp_path / "server") as server:
        printed = project.told(with_login(server.uri), **SECRETS).dvc("repro")
        assert "2 runs" in printed
        assert "at http://127.0.0.1" in printed
    printed += project.told(with_login(CLOSED), **SECRETS).graft("track")
    with answering(500, b"no") as uri:  # an error that nobody expects, with its stack trace
        for command in (["graft.cli", "sync"], ["graft.cli", "serve"]):
            told = project.told(with_login(uri), **SECRETS)
            failed = told.end(told.start(*command), well=False)
            assert "Traceback" in failed or "graft: " in failed
            printed += failed
    assert MARK not in printed
    assert files_with(tmp_path, MARK.encode()) == []


def test_the_ui_is_given_its_database_where_other_users_do_not_see_it(tmp_path, monkeypatch):
    from graft.commands import runs

    given = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((CHECKOUT / "params.yaml").read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{MARK}.db")
    monkeypatch.setattr(os, "execve", lambda *arguments: given.append(arguments))
    runs.ui(5001)
    (_, command, environment), *_ = given
    assert MARK not in " ".join(command)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/{MARK}.db"
    assert command[command.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize("what", ["a whole model with a Lambda", "a link to another file", "a claim of terabytes"])
def test_weights_that_a_row_names_are_looked_through_before_they_are_loaded(tmp_path, what):
    path = tmp_path / "weights.h5"
    hostile_files.hostile_weights()[what](path)
    with pytest.raises(ArtifactError, match=rf"^{path} is refused: "):
        file_base(Base(application="MobileNet", input_size=32, width=0.25, weights=str(path), depends_on=path))


def test_a_model_that_a_row_names_for_its_weights_is_looked_through_before_it_is_loaded(tmp_path):
    path = tmp_path / "base.keras"
    hostile_files.hostile_networks(tmp_path / "touched")["names a Lambda layer"](path)
    with pytest.raises(ArtifactError, match=rf"^{path} is refused: its configuration names 'keras.layers.Lambda'"):
        file_base(Base(application="MobileNet", input_size=32, width=0.25, weights=str(path), depends_on=path))


def test_every_package_is_pinned_by_its_hash_and_comes_from_no_address():
    lines = (CHECKOUT / "requirements.txt").read_text().replace("\\\n", " ").splitlines()
    packages = [line for line in lines if line.strip() and not line.strip().startswith("#")]
    assert len(packages) > 100
    pinned = re.compile(r"[A-Za-z0-9_.-]+(\[[a-z,]+\])?==[\w.+!]+( ; [^@]+?)?( +--hash=sha256:[0-9a-f]{64})+ *")
    assert [line for line in packages if not pinned.fullmatch(line)] == []


def test_secrets_of_a_team_are_not_for_git():
    """The file that docker compose reads them from."""
    command = ["git", "check-ignore", "--no-index", ".env", ".server/secret_key"]
    ignored = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert ignored.stdout.split() == command[3:]
