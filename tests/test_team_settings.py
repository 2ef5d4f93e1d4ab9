import configparser
import re
import socket
import stat

import pytest
import sqlalchemy
from mlflow.server.security_utils import is_allowed_host_header
from postgres_on_trial import PASSWORD, needs_postgres, open_folder

from graft.postgres import Cluster
from graft.team_settings import (
    LOOPBACK_HOSTS,
    Backend,
    ServerError,
    check_first_start,
    check_settings,
    database,
    server_environment,
)


def backend(uri, **settings):
    with database({"MLFLOW_BACKEND_STORE_URI": uri, **settings}, None) as opened:
        return opened


def address(opened):
    return opened.url.render_as_string(hide_password=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_alone_needs_no_settings(host):
    check_settings({}, host)


@pytest.mark.parametrize(
    ("settings", "host", "message"),
    [
        ({}, "0.0.0.0", "--host 0.0.0.0 listens beyond this machine: set MLFLOW_SERVER_ALLOWED_HOSTS"),
        ({"MLFLOW_SERVER_ALLOWED_HOSTS": " ,"}, "mlflow.example.org", "set MLFLOW_SERVER_ALLOWED_HOSTS"),
        ({"MLFLOW_SERVER_ALLOWED_HOSTS": "a.org, *"}, "0.0.0.0", r"must name the hosts, .* received \*, which"),
        ({"MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true"}, "127.0.0.1", "unset it"),
        ({"GRAFT_DEFAULT_PERMISSION": "WRITE"}, "127.0.0.1", "must be one of READ, USE, .* received 'WRITE'"),
    ],
)
def test_what_would_leave_the_server_open_is_refused(settings, host, message):
    with pytest.raises(ServerError, match=message):
        check_settings(settings, host)


@pytest.mark.parametrize(
    "pattern",
    [
        "*:*",
        "*:5000",
        "**",
        "*.*",
        "*.com",
        "*.com:443",
        "?.org",
        "*example.org",
        "10.0.*",
        "a.b.*:*",
        "*..org",
        "[*].a",
    ],
)
def test_a_pattern_that_others_hosts_match_is_refused(pattern):
    with pytest.raises(ServerError, match=f"received {re.escape(pattern)}, which would let web pages of others"):
        check_settings({"MLFLOW_SERVER_ALLOWED_HOSTS": f"a.org,{pattern}"}, "127.0.0.1")


@pytest.mark.parametrize(
    "hosts",
    ["mlflow", "mlflow:*", "mlflow.example.org:5000", "*.example.org", "*.example.org:*", "[::1]:5000", LOOPBACK_HOSTS],
)
def test_names_and_patterns_of_one_domain_are_taken(hosts, tmp_path):
    check_settings({"MLFLOW_SERVER_ALLOWED_HOSTS": hosts}, "0.0.0.0")
    settings = {"MLFLOW_SERVER_ALLOWED_HOSTS": hosts}
    environment = server_environment(settings, backend("postgresql://me@host/db"), tmp_path)
    assert environment["MLFLOW_SERVER_ALLOWED_HOSTS"] == hosts


@pytest.mark.parametrize("hosts", [None, "", " ,"])
def test_unless_hosts_are_named_only_those_of_this_machine_are_taken_as_mlflow_matches_them(tmp_path, hosts):
    settings = {} if hosts is None else {"MLFLOW_SERVER_ALLOWED_HOSTS": hosts}
    environment = server_environment(settings, backend("postgresql://me@host/db"), tmp_path)
    allowed = environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert is_allowed_host_header(allowed, host)
        assert is_allowed_host_header(allowed, f"{host}:5000")
    for host in ("10.evil.com", "192.168.evil.com:5000", "localhost.evil.com", "127.0.0.1.evil.com:80", "evil.com"):
        assert not is_allowed_host_header(allowed, host)


@pytest.mark.parametrize(
    "uri", ["sqlite:///mlflow.db", "mysql://me:secret@host/db", "postgresql+psycopg://u:secret@h/d"]
)
def test_another_database_is_refused_with_the_reason_and_without_its_password(uri):
    scheme = uri.split(":")[0]
    with pytest.raises(ServerError, match=rf"received {re.escape(scheme)}://\.\.\.; many who write") as refused:
        backend(uri)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("uri", ["secret", "postgresql://u:secret@host:port/db"])
def test_what_is_no_address_is_refused_without_being_shown(uri):
    with pytest.raises(ServerError, match="must be postgresql://user@host/database") as refused:
        backend(uri)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    ["postgresql://me:a%2Fb%40c@host/db?sslmode=require", "postgresql://me@host/db?sslmode=require&password=a/b%40c"],
)
def test_the_password_is_taken_out_of_the_address(uri):
    opened = backend(uri)
    assert address(opened) == "postgresql+psycopg2://me@host/db?sslmode=require"
    assert opened.password == "a/b@c"


def test_the_password_may_be_set_apart():
    assert backend("postgresql://me@host/db", PGPASSWORD="x").password == "x"
    assert backend("postgresql://me@host/db").password is None


def test_the_environment_keeps_what_the_team_set_and_hides_what_is_secret(tmp_path):
    settings = {"MLFLOW_WORKERS": "7", "MLFLOW_ARTIFACTS_DESTINATION": "", "GRAFT_DEFAULT_PERMISSION": "EDIT"}
    environment = server_environment(settings, backend("postgresql://me:secret@host/a%25b"), tmp_path)
    assert environment["MLFLOW_WORKERS"] == "7"
    assert environment["MLFLOW_ARTIFACTS_DESTINATION"] == str(tmp_path / "artifacts")  # empty is as if not set
    assert [name for name, value in environment.items() if "secret" in value] == ["PGPASSWORD"]
    parser = configparser.ConfigParser()
    parser.read(environment["MLFLOW_AUTH_CONFIG_PATH"])
    login = dict(parser["mlflow"])
    assert login["database_uri"] == environment["MLFLOW_BACKEND_STORE_URI"]
    assert sqlalchemy.make_url(login["database_uri"]).database == "a%b"
    assert (login["default_permission"], login["admin_username"]) == ("EDIT", "admin")
    for name in ("auth.ini", "secret_key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_forms_are_signed_by_the_same_key_after_a_restart(tmp_path):
    opened, name = backend("postgresql://me@host/db"), "MLFLOW_FLASK_SERVER_SECRET_KEY"
    first = server_environment({}, opened, tmp_path)[name]
    assert len(first) == 64
    assert server_environment({}, opened, tmp_path)[name] == first
    assert server_environment({name: "own"}, opened, tmp_path)[name] == "own"


def test_pages_of_the_allowed_hosts_may_ask_for_data(tmp_path):
    settings = {"MLFLOW_SERVER_ALLOWED_HOSTS": "a.org, b.org:5000"}
    environment = server_environment(settings, backend("postgresql://me@host/db"), tmp_path)
    allowed = environment["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert allowed == ["http://a.org", "https://a.org", "http://b.org:5000", "https://b.org:5000"]


def test_a_database_that_does_not_answer_is_named_in_one_line_without_its_password():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        opened = backend(f"postgresql://me:secret@127.0.0.1:{unused.getsockname()[1]}/db")
    with pytest.raises(ServerError, match=r"^PostgreSQL cannot be used: .*Connection refused") as refused:
        check_first_start({}, opened)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@needs_postgres
def test_the_first_start_alone_needs_the_administrators_password():
    with open_folder() as folder, Cluster(folder / "postgres", durable=False) as cluster:
        cluster.create_database("mlflow")
        opened = Backend(sqlalchemy.make_url(cluster.uri("mlflow", password=False)), cluster.password)
        for password in ("", "elevenchars", "password1234"):
            with pytest.raises(ServerError, match=r"makes the user ann: set MLFLOW_AUTH_ADMIN_PASSWORD to at least 12"):
                check_first_start(_admin("ann", password), opened)
        check_first_start(_admin("ann", PASSWORD), opened)
        engine = sqlalchemy.create_engine(cluster.uri("mlflow"))
        with engine.begin() as connection:  # as MLflow has them
            connection.execute(sqlalchemy.text("CREATE TABLE users AS SELECT 'ann' AS username"))
        engine.dispose()
        check_first_start(_admin("ann", ""), opened)
        with pytest.raises(ServerError, match="makes the user bob"):
            check_first_start(_admin("bob", ""), opened)


def _admin(name, password):
    return {"MLFLOW_AUTH_ADMIN_USERNAME": name, "MLFLOW_AUTH_ADMIN_PASSWORD": password}
