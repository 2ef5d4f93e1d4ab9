"""The server as `make server` runs it: real processes of MLflow and PostgreSQL."""

import base64
import contextlib
import os
import re
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import fake_tracked as fake
import psutil
import pytest
import sqlalchemy
from fake_runs import fake_params
from postgres_on_trial import PASSWORD, needs_postgres, open_folder, started, team_server, without_mlflow
from real_server import free_port

from graft import team_server as server
from graft.calibration import Calibration, write_calibration
from graft.journal import read_journal
from graft.team_settings import ServerError

OTHERS_PASSWORD = "twelve or more"
PUBLISH = """
import sys; from pathlib import Path
import fake_mlflow, fake_tracked as fake; from fake_runs import fake_params
from graft import run_parts; from graft.errors import GraftError; from graft.tracking import publish
root, params = Path.cwd(), fake.change(fake_params(1), tracking__experiment=sys.argv[1])
if sys.argv[2:] != ["with their files"]:
    run_parts.log_model = fake_mlflow.log_light_model
try:
    print(publish(fake.trained(root, params), params, fake.project(root, params)).new)
except GraftError as error:
    raise SystemExit(f"graft: {error}")
"""


@pytest.fixture(scope="module")
def team():
    with team_server() as running:
        yield running


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path / "project")


def make_project(root):
    """A finished project; its models' keys are those of every other one, its trainings are its own."""
    root.mkdir(parents=True)
    here = Path.cwd()
    os.chdir(root)
    try:
        fake.finished_project(root, fake_params(1), "vgg16")
        for folder in fake_params(1).models():
            write_calibration(Path("models", folder), Calibration(1.0, None, 1.0))
    finally:
        os.chdir(here)
    return root


def status(url, login=None, **headers):
    request = urllib.request.Request(url, headers=headers)
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(":".join(login).encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def python(code, environment, *arguments, cwd, **options):
    """A Python process that has the tests' own modules."""
    environment = environment | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, stderr=subprocess.PIPE, **options)


def rows(team, statement):
    engine = sqlalchemy.create_engine(team.store)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(statement))]
    finally:
        engine.dispose()


@pytest.mark.slow
@needs_postgres
@pytest.mark.parametrize(
    "path",
    ["/", "/signup", "/api/2.0/mlflow/experiments/get?experiment_id=0", "/api/2.0/mlflow-artifacts/artifacts"],
)
def test_nobody_gets_in_without_a_login(team, path):
    assert status(team.uri + path) == 401
    assert status(team.uri + path, ("admin", "a wrong password")) == 401
    assert status(team.uri + path, ("admin", PASSWORD)) == 200


@pytest.mark.slow
@needs_postgres
def test_another_host_and_pages_of_other_sites_are_refused(team):
    for host in ("evil.example.org", "10.evil.com", "192.168.evil.com:5000"):  # MLflow alone takes the last two
        assert status(team.uri, ("admin", PASSWORD), Host=host) == 403
    assert status(f"{team.uri}/health") == 200  # for those who watch over it


@pytest.mark.slow
@needs_postgres
def test_secrets_stand_neither_on_a_command_line_nor_in_the_log_nor_in_the_login_settings(team):
    database_password = str(sqlalchemy.make_url(team.store).password)
    family = [psutil.Process(team.process.pid), *psutil.Process(team.process.pid).children(recursive=True)]
    assert len(family) >= 4  # MLflow, and those of its processes that answer
    key = (team.folder / ".server" / "secret_key").read_text()
    for process in family:
        for secret in (PASSWORD, database_password, key):
            assert secret not in " ".join(process.cmdline())
    settings = team.folder / ".server" / "auth.ini"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    for text in (team.log.read_text(), settings.read_text()):
        assert not [secret for secret in (PASSWORD, database_password, key) if secret in text]


@pytest.mark.slow
@needs_postgres
def test_users_are_added_as_the_server_says_kept_in_postgresql_and_read_what_others_made(team, tmp_path):
    command = re.search(r'python -c "(.*)"', team.log.read_text()).group(1)
    with python(command, team.environment(), cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        said = process.communicate(f"ann\n{OTHERS_PASSWORD}\n", timeout=60)
    assert process.returncode == 0, said
    assert rows(team, "SELECT username, is_admin FROM users ORDER BY id") == [("admin", True), ("ann", False)]
    ann = ("ann", OTHERS_PASSWORD)
    assert status(f"{team.uri}/api/2.0/mlflow/experiments/get?experiment_id=0", ann) == 200
    code = "import mlflow; mlflow.MlflowClient().create_run('0')"
    with python(code, team.environment(*ann), cwd=tmp_path) as process:
        assert "Permission denied" in process.communicate(timeout=60)[1]


@pytest.mark.slow
@needs_postgres
def test_runs_go_to_postgresql_and_artifacts_to_the_servers_folder(team, project):
    arguments = ("alone", "with their files")
    with python(PUBLISH, team.environment(), *arguments, cwd=project, stdout=subprocess.PIPE) as process:
        said = process.communicate(timeout=120)
    assert (said[0].strip(), process.returncode) == ("3", 0), said
    check_complete(team, "alone", project)
    artifacts = team.folder / ".server" / "artifacts"
    experiment, location = rows(team, "SELECT experiment_id, artifact_location FROM experiments WHERE name = 'alone'")[
        0
    ]
    assert location == f"mlflow-artifacts:/{experiment}"
    for ((run,),) in zip(rows(team, f"SELECT run_uuid FROM runs WHERE experiment_id = {experiment}"), strict=True):
        assert (artifacts / str(experiment) / run / "artifacts" / "journal.jsonl").is_file()
    assert not (project / "mlartifacts").exists()


@pytest.mark.slow
@needs_postgres
@pytest.mark.parametrize("password", [None, "a wrong password"])
def test_who_publishes_without_a_login_is_told_in_one_line_what_to_set(team, project, password):
    environment = without_mlflow(os.environ) | {"MLFLOW_TRACKING_URI": team.uri}
    if password:
        environment |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": password}
    with python(PUBLISH, environment, "anonymous", cwd=project) as process:
        said = process.communicate(timeout=60)[1].strip()
    assert process.returncode == 1
    assert re.fullmatch(r"graft: .*MLFLOW_TRACKING_USERNAME.*MLFLOW_TRACKING_PASSWORD.*", said), said
    assert not rows(team, "SELECT 1 FROM experiments WHERE name = 'anonymous'")


@pytest.mark.slow
@needs_postgres
def test_pipelines_that_publish_at_once_lose_nothing_and_log_nothing_twice(team, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = make_project(tmp_path / "first"), make_project(tmp_path / "second")
    # The first project twice: the same runs. The second has runs of its own, whose keys are the first's.
    calls = [(first, "at-once"), (first, "at-once"), (second, "at-once-too")]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(python(PUBLISH, team.environment(), name, cwd=root, stdout=subprocess.PIPE))
            for root, name in calls
        ]
        said = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    added = [int(out) for out, _ in said]
    assert (added[0] + added[1], added[2]) == (3, 3)
    check_complete(team, "at-once", first)
    check_complete(team, "at-once-too", second)


@pytest.mark.slow
@needs_postgres
def test_two_clones_that_publish_the_same_keys_at_once_end_with_one_run_of_each(team, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clones = [make_project(tmp_path / name) for name in ("one", "two")]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(python(PUBLISH, team.environment(), "clones", cwd=root, stdout=subprocess.PIPE))
            for root in clones
        ]
        said = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    with python(PUBLISH, team.environment(), "clones", cwd=clones[0], stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=120)[0].strip() == "0"
    assert rows(team, runs_by_key("clones")) == [(1,), (1,), (1,)]


def runs_by_key(experiment):
    return (
        "SELECT count(*) FROM runs JOIN tags USING (run_uuid) JOIN experiments USING (experiment_id)"
        f" WHERE experiments.name = '{experiment}' AND runs.lifecycle_stage = 'active' AND tags.key = 'graft.key'"
        " GROUP BY tags.value"
    )


def check_complete(team, experiment, root):
    """What PostgreSQL holds of an experiment is what the project's journals say: each run, epoch and number once."""
    journals = {path.parent.name: read_journal(path) for path in root.glob("reports/runs/*/journal.jsonl")}
    assert len(journals) == 3
    assert rows(team, runs_by_key(experiment)) == [(1,), (1,), (1,)]
    counts = rows(
        team,
        "SELECT runs.name, metrics.key, count(*) FROM metrics JOIN runs USING (run_uuid)"
        f" JOIN experiments USING (experiment_id) WHERE experiments.name = '{experiment}'"
        " AND runs.lifecycle_stage = 'active' AND metrics.key LIKE 'epoch/%' GROUP BY runs.name, metrics.key",
    )
    expected = {
        (name, f"epoch/{metric}", len(journal.epochs))
        for name, journal in journals.items()
        for metric in ("loss", "val_loss", "val_accuracy")
        if journal.epochs
    }
    assert set(counts) == expected
    assert len(counts) == len(expected)


@pytest.mark.slow
@needs_postgres
def test_with_a_database_of_its_own_it_starts_again_with_what_it_had_and_leaves_no_process():
    with open_folder() as folder:
        with started(folder, {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_WORKERS": "1"}) as (process, uri, log):
            everything = family(process) | {database(folder)}
            code = "import mlflow; mlflow.MlflowClient().create_experiment('kept')"
            with python(code, login(uri), cwd=folder) as client:
                assert client.wait(60) == 0
        assert process.returncode == 0
        assert log.read_text().endswith("server: ended\n")
        assert not everything & running()
        log.unlink()
        # The administrator is there, and so needs no password.
        with started(folder, {"MLFLOW_WORKERS": "1"}) as (process, uri, log):
            found = f"{uri}/api/2.0/mlflow/experiments/get-by-name?experiment_name=kept"
            assert status(found, ("admin", PASSWORD)) == 200
            everything = family(process) | {database(folder)}
            psutil.Process(process.pid).children()[0].kill()  # MLflow's first process
            assert process.wait(60) == 1
            assert "server: MLflow ended by itself, with -9; its messages are above" in log.read_text()
            assert not everything & running()


@pytest.mark.slow
@needs_postgres
def test_artifacts_are_closed_to_the_other_users_of_the_machine(team):
    modes = [stat.S_IMODE((team.folder / path).stat().st_mode) for path in (".server", ".server/artifacts")]
    assert modes == [0o711 if os.geteuid() == 0 else 0o700, 0o700]


@pytest.mark.slow
@needs_postgres
def test_what_a_killed_server_left_is_ended_by_the_next_start_and_a_running_one_is_not():
    with open_folder() as folder:
        settings = {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_WORKERS": "1"}
        port = free_port()
        with started(folder, settings, port) as (process, _, _):
            second = again(folder, settings)
            assert second.returncode == 1
            expected = f"server: another server runs in {folder}, as process {process.pid}; end it first\n"
            assert second.stderr == expected
            left = family(process)
            assert len(left) >= 2
            process.kill()
            process.wait()
            assert left <= running()
        with started(folder, settings, port) as (process, uri, log):
            assert not left & running()
            assert "of a server that was killed" in log.read_text()
            assert status(uri, ("admin", PASSWORD)) == 200
        assert not (folder / ".server" / "mlflow.pid").exists()


def again(folder, settings):
    command = [sys.executable, "-m", "graft.team_server", "--port", str(free_port())]
    environment = without_mlflow(os.environ) | settings
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_a_process_that_only_has_the_id_of_a_server_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".server").mkdir()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:  # in the same folder
        (tmp_path / ".server" / "mlflow.pid").write_text(f"{other.pid} 1\n")
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ServerError, match="cannot listen"):
            server.run("127.0.0.1", taken.getsockname()[1])
        assert other.poll() is None
        other.kill()


def family(process):
    """Ids of the processes that one started, but for the database, which cuts itself loose."""
    return {child.pid for child in psutil.Process(process.pid).children(recursive=True)}


def database(folder):
    return int((folder / ".server" / "postgres" / "data" / "postmaster.pid").read_text().split("\n")[0])


def running():
    """Ids of all processes, but for those that ended and are remembered for their exit code."""
    return {one.pid for one in psutil.process_iter(["status"]) if one.info["status"] != psutil.STATUS_ZOMBIE}


def login(uri):
    user = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    return without_mlflow(os.environ) | user | {"MLFLOW_TRACKING_URI": uri}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"MLFLOW_BACKEND_STORE_URI": "sqlite:///mlflow.db"}, "graft: MLFLOW_BACKEND_STORE_URI must be postgresql://"),
        ({"MLFLOW_SERVER_ALLOWED_HOSTS": "*"}, "graft: MLFLOW_SERVER_ALLOWED_HOSTS must name the hosts"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, settings, message):
    command = [sys.executable, "-m", "graft.cli", "server", "--port", str(free_port())]
    environment = without_mlflow(os.environ) | settings
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"cannot listen on 127.0.0.1, port {port}: Address already in use"):
            server.run("127.0.0.1", port)
    assert not list(tmp_path.iterdir())
