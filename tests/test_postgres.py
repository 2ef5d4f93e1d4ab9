import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import sqlalchemy
from postgres_on_trial import needs_postgres, open_folder

from graft import postgres
from graft.postgres import Cluster, PostgresError, find_binaries


@pytest.fixture
def folder():
    with open_folder() as path:
        yield path / "postgres"


@pytest.fixture
def cluster(folder):
    return Cluster(folder, durable=False)


def execute(cluster, statement, database="runs"):
    engine = sqlalchemy.create_engine(cluster.uri(database))
    try:
        with engine.begin() as connection:
            answer = connection.execute(sqlalchemy.text(statement))
            return answer.scalars().all() if answer.returns_rows else []
    finally:
        engine.dispose()


def server_pid(cluster):
    return int((cluster.folder / "data" / "postmaster.pid").read_text().split("\n")[0])


@needs_postgres
def test_what_is_written_is_there_at_the_next_start_and_nothing_runs_in_between(cluster):
    with cluster:
        cluster.create_database("runs")
        execute(cluster, "CREATE TABLE t AS SELECT 7 AS number")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", cluster.port))
    with cluster:
        cluster.create_database("runs")  # it is there
        assert execute(cluster, "SELECT number FROM t") == [7]


@needs_postgres
def test_only_this_machine_gets_in_and_only_with_the_password(cluster):
    with cluster:
        assert execute(cluster, "SHOW listen_addresses", "postgres") == ["127.0.0.1"]
        assert execute(cluster, "SHOW unix_socket_directories", "postgres") == [""]
        wrong = cluster.uri("postgres").replace(cluster.password, "guessed")
        with pytest.raises(sqlalchemy.exc.OperationalError, match="password authentication failed"):
            sqlalchemy.create_engine(wrong).connect()
        command_line = Path(f"/proc/{server_pid(cluster)}/cmdline").read_text()
        assert cluster.password not in command_line
    assert stat.S_IMODE((cluster.folder / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(cluster.folder.stat().st_mode) == 0o700
    assert cluster.password not in cluster.uri("postgres", password=False)


def start_and_kill(cluster):
    """Start it in a process that is then killed; the server itself runs on."""
    code = "import sys, time; from pathlib import Path; from graft.postgres import Cluster\n"
    code += "with Cluster(Path(sys.argv[1]), durable=False) as cluster:\n"
    code += " cluster.create_database('runs'); print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(cluster.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.kill()


@needs_postgres
def test_a_server_whose_starter_was_killed_is_replaced(cluster):
    start_and_kill(cluster)
    left = server_pid(cluster)
    assert psutil.Process(left).status() != psutil.STATUS_ZOMBIE
    with cluster:
        assert server_pid(cluster) != left
        assert execute(cluster, "SELECT 1") == [1]


@needs_postgres
def test_the_process_id_that_a_killed_server_left_does_not_keep_it_from_starting(cluster):
    start_and_kill(cluster)
    os.kill(server_pid(cluster), signal.SIGKILL)
    left = cluster.folder / "data" / "postmaster.pid"
    # The number may belong to another program by now, which must not be taken for the server, nor ended.
    with subprocess.Popen(["sleep", "60"]) as bystander:
        left.write_text("\n".join([str(bystander.pid), *left.read_text().split("\n")[1:]]))
        with cluster:
            assert execute(cluster, "SELECT 1") == [1]
        assert bystander.poll() is None
        bystander.kill()


@needs_postgres
def test_two_processes_cannot_run_it_at_once(cluster):
    with (
        cluster,
        pytest.raises(PostgresError, match=r"another process runs the PostgreSQL of .*postgres; end it first"),
        Cluster(cluster.folder),
    ):
        pass


@needs_postgres
def test_data_of_another_version_are_refused_with_what_is_installed(cluster):
    with cluster:
        pass
    (cluster.folder / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(PostgresError, match=r"expected the programs of PostgreSQL 9 .*found \d+"), cluster:
        pass


@needs_postgres
def test_data_that_an_interrupted_first_start_left_are_made_anew(cluster):
    (cluster.folder / "data.partial").mkdir(parents=True)
    (cluster.folder / "data.partial" / "half").touch()
    with cluster:
        assert execute(cluster, "SELECT 1", "postgres") == [1]


@needs_postgres
def test_a_start_that_fails_says_what_postgresql_said(cluster):
    with cluster:
        pass
    with (cluster.folder / "data" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(PostgresError, match='unrecognized configuration parameter "no_such_setting"'), cluster:
        pass


@needs_postgres
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become another user")
def test_a_folder_that_the_other_user_cannot_reach_is_refused(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o700)
    with pytest.raises(PostgresError, match="cannot reach"), Cluster(tmp_path / "closed" / "postgres"):
        pass


def test_root_without_another_user_is_told_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 0)
    monkeypatch.setattr(postgres.pwd, "getpwnam", {}.__getitem__)
    with pytest.raises(PostgresError, match="run this as another user than root, or set MLFLOW_BACKEND_STORE_URI"):
        Cluster(tmp_path / "postgres").__enter__()
    assert not (tmp_path / "postgres").exists()


def test_without_postgresql_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(postgres, "_folders", lambda: iter(()))
    with pytest.raises(PostgresError, match=r"found none; install it \(Debian: apt-get install postgresql\)$"):
        find_binaries()


def test_an_address_is_percent_encoded(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.password, cluster.port = "a/b@c:d%", 5432
    url = sqlalchemy.make_url(cluster.uri("x"))
    assert (url.password, url.host, url.port, url.database) == ("a/b@c:d%", "127.0.0.1", 5432, "x")
    assert url.drivername == "postgresql+psycopg2"
