import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import fake_tracked as fake
import pytest

from graft.journal import Journal, lock_key, read_journal, run_key, work_folder
from graft.storage import ArtifactError

HEADER = {
    "key": "k1",
    "model": "vgg16",
    "kind": "finetune",
    "backbone": "vgg16",
    "stage": "finetune@vgg16",
    "params": {"seed": 1, "finetune": {"epochs": 2, "learning_rate": 1e-3}},
}


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def start(**changes):
    origin = {"commit": None, "dirty": False, "experiment": None, "started": "2026-01-01T00:00:00.000+00:00"}
    return {"record": "start", "schema": 1, **HEADER, **origin, **changes}


def epoch(number, **metrics):
    return {"record": "epoch", "epoch": number, "phase": "frozen", "metrics": metrics or {"loss": 1.0}}


def candidate(**changes):
    return {"record": "candidate", "candidate": {**fake.grid(1)[0], **changes}}


END = {"record": "end", "metrics": {"parameters": 3}, "timings": {"train_seconds": 1.5}, "ended": "2026-01-01T00:01:00"}
SAMPLE = {"record": "system", "metrics": {}, "time": "2026-01-01T00:00:30.000+00:00"}


def test_a_finished_journal_reads_back_as_written(tmp_path):
    run = Journal.start(tmp_path / "work", HEADER)
    run.epoch(1, "frozen", {"loss": 0.5, "val_accuracy": 0.25})
    run.epoch(2, "unfrozen", {"loss": 0.25, "val_accuracy": 0.5})
    run.finish({"parameters": 10}, {"train_seconds": 2.5})
    run.move_to(tmp_path / "out" / "journal.jsonl")

    record = read_journal(tmp_path / "out" / "journal.jsonl")
    assert {key: record.header[key] for key in HEADER} == HEADER
    assert record.header["started"] <= record.ended
    times = [epoch.pop("time") for epoch in record.epochs]
    assert record.header["started"] <= times[0] <= times[1] <= record.ended
    assert record.epochs == [
        {"epoch": 1, "phase": "frozen", "metrics": {"loss": 0.5, "val_accuracy": 0.25}},
        {"epoch": 2, "phase": "unfrozen", "metrics": {"loss": 0.25, "val_accuracy": 0.5}},
    ]
    assert (record.metrics, record.timings, record.complete) == ({"parameters": 10.0}, {"train_seconds": 2.5}, True)
    assert not (tmp_path / "work").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["journal.jsonl"]


def test_candidates_read_back_as_written_between_epochs_or_after_them(tmp_path):
    heads, tails = fake.grid(2), fake.grid(1, phase="unfrozen")
    run = Journal.start(tmp_path, HEADER)
    run.epoch(1, "frozen", {"loss": 0.5})
    for head in heads:
        run.candidate(head)
    run.epoch(2, "unfrozen", {"loss": 0.25})
    run.candidate(tails[0])
    assert read_journal(tmp_path / "journal.jsonl").candidates == [*heads, *tails]  # before the run ends
    run.finish({}, {})
    record = read_journal(tmp_path / "journal.jsonl")
    assert ([epoch["epoch"] for epoch in record.epochs], record.candidates) == ([1, 2], [*heads, *tails])
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line).get("candidate") for line in lines] == [None, None, *heads, None, *tails, None]


def test_a_candidate_that_is_none_is_refused_and_not_written(tmp_path):
    run = Journal.start(tmp_path, HEADER)
    (head,) = fake.grid(1)
    with pytest.raises(ArtifactError, match=r"candidate 'head-01': phase: Field required"):
        run.candidate({key: value for key, value in head.items() if key != "phase"})
    with pytest.raises(ArtifactError, match=r"journal.jsonl: a record must be JSON"):
        run.candidate({**head, "params": {"rate": float("nan")}})
    run.candidate(head)
    with pytest.raises(ArtifactError, match=r"names of candidates and repeats must differ, received 'head-01' again"):
        run.candidate(head)
    assert read_journal(tmp_path / "journal.jsonl").candidates == [head]


def test_a_journal_of_schema_1_has_the_times_of_its_ends_and_neither_samples_nor_repeats(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, start(), epoch(1), epoch(2))
    assert [record["time"] for record in read_journal(path).epochs] == [start()["started"]] * 2
    write(path, start(), epoch(1), candidate(), epoch(2), END)
    record = read_journal(path)
    assert [epoch["time"] for epoch in record.epochs] == [END["ended"]] * 2
    assert (record.system, record.repeats, len(record.candidates), record.complete) == ([], [], 1, True)


def test_samples_and_repeats_read_back_as_written_among_the_epochs(tmp_path):
    history = fake.grid(1)[0]["history"]
    repeats = [
        {"name": f"repeat-{number:02}", "seed": 1000 * number, "history": history, "metrics": {"val_accuracy": 0.5}}
        for number in (2, 3)
    ]
    run = Journal.start(tmp_path, HEADER)
    run.system({"system/cpu_utilization_percentage": 50})
    run.epoch(1, "frozen", {"loss": 0.5})
    run.repeat(repeats[0])
    run.system({"system/cpu_utilization_percentage": 75})
    run.repeat(repeats[1])
    with pytest.raises(ArtifactError, match=r"must differ, received 'repeat-02' again"):
        run.repeat(repeats[0])
    with pytest.raises(ArtifactError, match=r"cpu must be a finite number, received nan at a sample of the system"):
        run.system({"cpu": float("nan")})
    run.finish({}, {})
    record = read_journal(tmp_path / "journal.jsonl")
    assert [sample["metrics"] for sample in record.system] == [
        {"system/cpu_utilization_percentage": cpu} for cpu in (50, 75)
    ]
    assert record.header["started"] <= record.system[0]["time"] <= record.epochs[0]["time"] <= record.system[1]["time"]
    assert (record.repeats, len(record.epochs)) == (repeats, 1)


def test_threads_write_whole_lines(tmp_path):
    run = Journal.start(tmp_path, HEADER)

    def sample():
        for _ in range(50):
            run.system({"system/process_memory_megabytes": 1.0})

    threads = [threading.Thread(target=sample) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 51):
        run.epoch(number, "frozen", {"loss": 0.5})
    for thread in threads:
        thread.join()
    record = read_journal(tmp_path / "journal.jsonl")
    assert (len(record.epochs), len(record.system)) == (50, 200)


@pytest.mark.parametrize("finished", [True, False])
def test_a_journal_that_is_over_takes_nothing_more(tmp_path, finished):
    """Not even into a file that has its descriptor's number now."""
    run = Journal.start(tmp_path / "work", HEADER)
    if finished:
        run.finish({}, {})
        with pytest.raises(ArtifactError, match=r"work/journal.jsonl is finished, received one more record: system$"):
            run.system({"system/process_memory_megabytes": 1.0})
    run.move_to(tmp_path / "journal.jsonl")
    before = (tmp_path / "journal.jsonl").read_bytes()
    with open(tmp_path / "another", "w+b") as another:
        with pytest.raises(ArtifactError, match=r"is finished, received one more record: epoch$"):
            run.epoch(1, "frozen", {"loss": 0.5})
        assert another.read() == b""
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_every_line_is_readable_before_the_run_ends(tmp_path):
    run = Journal.start(tmp_path, HEADER)
    assert not read_journal(tmp_path / "journal.jsonl").complete
    run.epoch(1, "frozen", {"loss": 0.5})
    assert [record["epoch"] for record in read_journal(tmp_path / "journal.jsonl").epochs] == [1]


def test_what_a_run_of_other_params_left_is_begun_anew(tmp_path, capsys):
    Journal.start(tmp_path, HEADER).epoch(1, "frozen", {"loss": 0.5})
    Journal.start(tmp_path, {**HEADER, "params": {"seed": 2}})
    record = read_journal(tmp_path / "journal.jsonl")
    assert (record.header["params"], record.epochs) == ({"seed": 2}, [])
    reason = "training is not gone on with: .*journal.jsonl is of another run: its params is not the same"
    assert re.search(reason, capsys.readouterr().out)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_and_not_written(tmp_path, value):
    run = Journal.start(tmp_path, HEADER)
    with pytest.raises(
        ArtifactError, match=r"val_loss must be a finite number, received (nan|inf) at epoch 3 \(frozen\)"
    ):
        run.epoch(3, "frozen", {"loss": 1.0, "val_loss": value})
    with pytest.raises(ArtifactError, match="train_seconds must be a finite number"):
        run.finish({}, {"train_seconds": value})
    assert read_journal(tmp_path / "journal.jsonl").epochs == []


def test_a_header_of_other_keys_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"header must have \['backbone', 'key'.*received \['key'\]"):
        Journal.start(tmp_path, {"key": "k"})
    assert not list(tmp_path.iterdir())
    with pytest.raises(ArtifactError, match="a record must be JSON"):
        Journal.start(tmp_path, {**HEADER, "params": {"rate": float("nan")}})


def test_a_torn_last_line_means_an_unfinished_run(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, start(), epoch(1), epoch(2), END)
    path.write_bytes(path.read_bytes()[:-7])
    record = read_journal(path)
    assert ([e["epoch"] for e in record.epochs], record.complete, record.metrics) == ([1, 2], False, {})


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "must hold one start"),
        ([epoch(1)], r"must hold one start, .* received \['epoch'\]"),
        ([start(), END, epoch(1)], "must hold one start"),
        ([start(), start()], "must hold one start"),
        (
            [{name: value for name, value in start().items() if name != "commit"}],
            r"journal.jsonl:1 is damaged: expected \[.*'commit'",
        ),
        ([start(schema=3)], r"journal.jsonl:1: journals of schema 1 and 2 can be read, received 3"),
        ([start(schema=2), epoch(1)], r"journal.jsonl:2 is damaged: expected \['epoch', 'metrics', 'phase', 'time'\]"),
        ([start(), SAMPLE], r"journal.jsonl:2 is damaged: expected one of start, epoch, candidate, end, .*'system'"),
        ([start(), epoch(1), epoch(2), epoch(2)], r"journal.jsonl:4: epochs must ascend, received 2 after 2"),
        (
            [start(), {"record": "epoch", "epoch": 1}],
            r"journal.jsonl:2 is damaged: expected \['epoch', 'metrics', 'phase'\]",
        ),
        ([start(), {"record": "pause"}], r"journal.jsonl:2 is damaged"),
        ([start(), candidate(), epoch(1), candidate(), epoch(1)], r"journal.jsonl:5: epochs must ascend, received 1"),
        ([start(), epoch(1), END, candidate()], r"then epochs, samples, .* received \[.*'end', 'candidate'\]"),
        ([start(), epoch(1), candidate(chosen=1)], r"journal.jsonl:3 is damaged: chosen: .*boolean, received '1'"),
        ([start(), {**candidate(), "name": "head-01"}], r"journal.jsonl:2 is damaged: expected \['candidate'\]"),
        ([start(), {"record": "candidate", "candidate": []}], r"journal.jsonl:2 is damaged: .*received '\[\]'"),
        ([start(), ["epoch"], END], r"journal.jsonl:2 is damaged"),
    ],
)
def test_a_damaged_journal_is_named_with_its_line(tmp_path, records, message):
    write(tmp_path / "journal.jsonl", *records)
    with pytest.raises(ArtifactError, match=message):
        read_journal(tmp_path / "journal.jsonl")


def test_a_line_that_is_not_json_is_named(tmp_path):
    write(tmp_path / "journal.jsonl", start(), epoch(1), END)
    damaged = (tmp_path / "journal.jsonl").read_text().splitlines()
    damaged[1] = damaged[1][:20] + "\x00" * 8
    (tmp_path / "journal.jsonl").write_text("\n".join(damaged) + "\n")
    with pytest.raises(ArtifactError, match=r"journal.jsonl:2 is damaged: expected a record of a journal, received"):
        read_journal(tmp_path / "journal.jsonl")
    with pytest.raises(ArtifactError, match="is missing; `dvc repro` makes it"):
        read_journal(tmp_path / "absent.jsonl")


def test_a_second_process_waits_until_the_first_has_moved_its_journal(tmp_path):
    run = Journal.start(tmp_path / "work", HEADER)
    script = (
        "import json, sys, pathlib; from graft.journal import Journal\n"
        "run = Journal.start(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]))\n"
        "run.finish({'second': 1}, {}); run.move_to(pathlib.Path(sys.argv[3]))"
    )
    arguments = [str(tmp_path / "work"), json.dumps(HEADER), str(tmp_path / "second.jsonl")]
    second = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)
    assert "waiting for it to end" in second.stdout.readline()
    run.finish({"first": 1}, {})
    run.move_to(tmp_path / "first.jsonl")
    second.communicate(timeout=30)
    assert second.returncode == 0
    assert read_journal(tmp_path / "first.jsonl").metrics == {"first": 1}
    assert read_journal(tmp_path / "second.jsonl").metrics == {"second": 1}
    assert not (tmp_path / "work").exists()


def test_unfinished_work_lies_under_dvc_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert work_folder("k") == tmp_path / ".work" / "k"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "original"))
    assert work_folder("k") == tmp_path / "original" / ".work" / "k"


PIPELINE = """\
stages:
  finetune:
    foreach: ${backbones}
    do:
      cmd: python train.py models/${key}
      deps: [train.py, data]
      params: [seed, "backbones.${key}.finetune"]
      outs: ["models/${key}"]
"""
PARAMS = "seed: 1\nbackbones:\n  vgg16: {finetune: {rate: RATE}}\n  resnet50: {finetune: {rate: 0.5}}\n"
TRAIN = """\
import os, pathlib, sys
from graft.journal import Journal, run_key, work_folder
key = run_key(os.environ["DVC_STAGE"], pathlib.Path.cwd())
pathlib.Path(sys.argv[1]).mkdir(parents=True)
pathlib.Path(sys.argv[1], "key").write_text(f"{key} {work_folder(key)}")
header = dict.fromkeys(("key", "model", "kind", "backbone", "stage", "params"))
Journal.start(work_folder(key), header).move_to(pathlib.Path(sys.argv[1], "journal.jsonl"))
"""


def fill(folder: Path, rate="1.0e-5"):
    (folder / "data").mkdir()
    for name in ("a", "b"):
        (folder / "data" / name).write_text(name)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text(PARAMS.replace("RATE", rate))
    (folder / "train.py").write_text(TRAIN)


@pytest.fixture
def project(tmp_path, monkeypatch):
    from dvc.repo import Repo

    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    folder = tmp_path / "project"
    folder.mkdir()
    fill(folder)
    Repo.init(str(folder), no_scm=True).close()
    return folder


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".dvc" not in path.parts}


def test_the_key_follows_command_parameters_and_inputs_and_nothing_else(project):
    before = snapshot(project)
    key = run_key("finetune@vgg16", project)
    assert len(key) == 64
    assert run_key("finetune@vgg16", project) == key != run_key("finetune@resnet50", project)
    assert snapshot(project) == before

    (project / "params.yaml").write_text(PARAMS.replace("RATE", "1.0e-5").replace("0.5", "0.25"))
    assert run_key("finetune@vgg16", project) == key
    for name, text in [
        ("params.yaml", PARAMS.replace("RATE", "2.0e-5")),
        ("train.py", TRAIN + "# another\n"),
        ("data/b", "c"),
        ("dvc.yaml", PIPELINE.replace("models/${key}\n", "models/${key} --fast\n", 1)),
    ]:
        old = (project / name).read_text()
        (project / name).write_text(text)
        assert run_key("finetune@vgg16", project) != key, name
        (project / name).write_text(old)
    assert run_key("finetune@vgg16", project) == key


def dvc(folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_EXP")}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    environment.pop("DVC_ROOT", None)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def keys(folder):
    """As seen by the running stage, and as in dvc.lock afterwards."""
    from ruamel.yaml import YAML

    lock = YAML(typ="safe").load(folder / "dvc.lock")["stages"]
    for stage, entry in lock.items():
        seen, work = (folder / "models" / stage.split("@")[1] / "key").read_text().split(maxsplit=1)
        yield stage, seen, lock_key(entry), Path(work)


@pytest.mark.slow
def test_a_running_stage_sees_the_key_that_dvc_lock_will_hold(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    project = tmp_path / "project"
    project.mkdir()
    fill(project)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], cwd=project, check=True)
    (project / ".gitignore").write_text("/models\n/.work\n")
    dvc(project, "init", "-q")
    dvc(project, "repro", "-q")
    first = list(keys(project))
    assert [seen for _, seen, _, _ in first] == [locked for _, _, locked, _ in first]
    assert len({seen for _, seen, _, _ in first}) == 2

    subprocess.run([*git, "add", "-A"], cwd=project, check=True)
    subprocess.run([*git, "commit", "-qm", "first"], cwd=project, check=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=project, text=True).strip()
    dvc(project, "exp", "run", "--temp", "-q", "-n", "faster", "-S", "backbones.vgg16.finetune.rate=0.25")
    assert list(keys(project)) == first  # the experiment ran in a copy
    dvc(project, "exp", "apply", "-q", "faster")
    second = list(keys(project))
    assert [seen for _, seen, _, _ in second] == [locked for _, _, locked, _ in second]
    assert second[0][1] != first[0][1]
    assert second[1] == first[1]
    assert second[0][3] == project / ".work" / second[0][1]  # of the original, not of the copy
    header = read_journal(project / "models" / "vgg16" / "journal.jsonl").header
    assert (header["commit"], header["dirty"], header["experiment"]) == (commit, True, "faster")  # by its params


def test_reading_a_journal_needs_neither_dvc_nor_mlflow():
    code = "import sys, graft.journal; sys.exit(any(name in sys.modules for name in ('dvc', 'mlflow', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


HISTORY = fake.grid(1)[0]["history"]
REPEAT = {"name": "repeat-02", "seed": 1001, "history": HISTORY, "metrics": {"val_accuracy": 0.5}}
MACHINE = {"processor": "x86_64 a", "threads": "2", "instructions": "sse " * 60}


def record_all(run, epochs=3):
    for number in range(1, epochs + 1):
        run.epoch(number, "frozen", {"loss": 1 / number, "val_loss": 2 / number})
    for candidate in fake.grid(2):
        run.candidate(candidate)
    run.repeat(REPEAT)


def interrupted(folder, machine=MACHINE):
    """Its journal, with three epochs, two candidates, a repeat and a sample."""
    run = Journal.start(folder, HEADER, machine)
    assert not run.resumed
    record_all(run)
    run.system({"system/cpu_utilization_percentage": 50})
    run.close()
    return folder / "journal.jsonl"


def test_an_interrupted_journal_goes_on_with_the_start_and_times_that_it_had_and_nothing_double(tmp_path, capsys):
    before = read_journal(interrupted(tmp_path / "work"))
    run = Journal.start(tmp_path / "work", HEADER, MACHINE)
    assert run.resumed
    assert capsys.readouterr().out == (
        f"going on with the training that began at {before.header['started']}: 3 epochs recorded\n"
    )
    record_all(run, epochs=4)
    run.system({"system/cpu_utilization_percentage": 75})
    run.finish({}, {})
    run.move_to(tmp_path / "journal.jsonl")
    after = read_journal(tmp_path / "journal.jsonl")
    assert after.header == before.header
    assert after.epochs[:3] == before.epochs
    assert [epoch["epoch"] for epoch in after.epochs] == [1, 2, 3, 4]
    assert after.epochs[3]["time"] >= before.system[0]["time"]
    assert (after.candidates, after.repeats) == (fake.grid(2), [REPEAT])
    assert [sample["metrics"]["system/cpu_utilization_percentage"] for sample in after.system] == [50, 75]


@pytest.mark.parametrize("lost", [1, 20, 60])
def test_a_torn_last_line_is_cut_off_and_told_again(tmp_path, lost):
    path = interrupted(tmp_path)
    whole = path.read_bytes()
    samples = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -len(samples) - lost])  # in the middle of the repeat
    run = Journal.start(tmp_path, HEADER, MACHINE)
    kept = path.read_bytes()
    assert whole.startswith(kept)
    assert kept.endswith(b"}\n")
    record_all(run)
    run.finish({}, {})
    record = read_journal(path)
    assert (len(record.epochs), len(record.candidates), record.repeats) == (3, 2, [REPEAT])
    assert path.read_bytes().startswith(whole[: -len(samples)])


def test_the_end_of_a_journal_that_was_not_moved_any_more_is_written_again(tmp_path):
    run = Journal.start(tmp_path, HEADER, MACHINE)
    run.epoch(1, "frozen", {"loss": 0.5})
    run.finish({"val_accuracy": 0.5}, {"train_seconds": 1.0})
    run.close()
    again = Journal.start(tmp_path, HEADER, MACHINE)
    assert not read_journal(tmp_path / "journal.jsonl").complete
    again.epoch(1, "frozen", {"loss": 0.5})
    again.finish({"val_accuracy": 0.5}, {"train_seconds": 2.0})
    record = read_journal(tmp_path / "journal.jsonl")
    assert (record.metrics, record.timings) == ({"val_accuracy": 0.5}, {"train_seconds": 2.0})
    assert len(record.epochs) == 1


def test_what_differs_from_before_the_interruption_is_refused_with_both_and_what_to_do(tmp_path):
    path = interrupted(tmp_path)
    before, first = path.read_bytes(), fake.grid(2)[0]
    run = Journal.start(tmp_path, HEADER, MACHINE)
    with pytest.raises(ArtifactError) as refused:
        run.epoch(2, "frozen", {"loss": 0.5, "val_loss": 1.0 + 2**-52})
    assert str(refused.value) == (
        f'{path}: epoch 2 must be what it was before the interruption, {{"phase": "frozen", "metrics": {{"loss": 0.5, '
        '"val_loss": 1.0}}, received {"phase": "frozen", "metrics": {"loss": 0.5, "val_loss": 1.0000000000000002}}: '
        "the training is not repeatable on this machine, or a file it reads has changed; "
        f"delete {tmp_path} and train it from the start"
    )
    with pytest.raises(ArtifactError, match=r"epoch 1 must be what .*\"frozen\".*received .*\"unfrozen\""):
        run.epoch(1, "unfrozen", {"loss": 1.0, "val_loss": 2.0})
    with pytest.raises(ArtifactError, match=r"head-01 must be what it was .*head-01.*received .*head-01"):
        run.candidate(first | {"chosen": not first["chosen"]})
    with pytest.raises(ArtifactError, match=r"repeat-02 must be what it was .*1001.*received .*2001"):
        run.repeat(REPEAT | {"seed": 2001})
    assert path.read_bytes() == before


def test_an_end_that_leaves_out_what_was_recorded_is_refused(tmp_path):
    path = interrupted(tmp_path)
    run = Journal.start(tmp_path, HEADER, MACHINE)
    for number in (1, 2):
        run.epoch(number, "frozen", {"loss": 1 / number, "val_loss": 2 / number})
    with pytest.raises(ArtifactError, match=r"journal.jsonl holds epoch 3, head-01, head-02, repeat-02 of the attempt"):
        run.finish({}, {})
    assert not read_journal(path).complete


def test_an_epoch_before_the_last_one_is_refused_where_it_is_not_recorded(tmp_path):
    run = Journal.start(tmp_path, HEADER)
    run.epoch(2, "frozen", {"loss": 0.5})
    run.epoch(2, "frozen", {"loss": 0.5})
    with pytest.raises(ArtifactError, match=r"journal.jsonl: epochs must ascend, received 1 after 2"):
        run.epoch(1, "frozen", {"loss": 0.5})
    assert len(read_journal(tmp_path / "journal.jsonl").epochs) == 1


def test_a_journal_of_another_machine_is_begun_anew_and_says_what_differs(tmp_path, capsys):
    started = read_journal(interrupted(tmp_path)).header["started"]
    run = Journal.start(tmp_path, HEADER, MACHINE | {"threads": "4", "instructions": "avx"})
    assert not run.resumed
    reason = "it began on another machine: another instructions; threads '2', here '4'"
    assert capsys.readouterr().out == f"{tmp_path}: an interrupted training is not gone on with: {reason}\n"
    record = read_journal(tmp_path / "journal.jsonl")
    assert record.epochs == record.repeats == []
    assert record.header["started"] >= started
    run.close()
    assert Journal.start(tmp_path, HEADER, MACHINE | {"threads": "4", "instructions": "avx"}).resumed


@pytest.mark.parametrize("damage", ["[]", "{", None])
def test_a_journal_that_does_not_say_its_machine_is_begun_anew(tmp_path, damage, capsys):
    interrupted(tmp_path)
    if damage is None:
        (tmp_path / "machine.json").unlink()
    else:
        (tmp_path / "machine.json").write_text(damage)
    assert not Journal.start(tmp_path, HEADER, MACHINE).resumed
    assert "nothing says on which machine it began: " in capsys.readouterr().out


def test_a_damaged_journal_is_begun_anew_and_says_which_line(tmp_path, capsys):
    path = interrupted(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "\x00" * 40 + "\n", *lines[3:]]))
    (tmp_path / "checkpoints").mkdir()
    run = Journal.start(tmp_path, HEADER, MACHINE)
    assert not run.resumed
    assert "journal.jsonl:3 is damaged" in capsys.readouterr().out
    assert read_journal(path).epochs == []
    assert (tmp_path / "checkpoints").exists()  # they have checksums of their own


def test_a_journal_of_an_older_schema_is_begun_anew(tmp_path, capsys):
    interrupted(tmp_path)
    write(tmp_path / "journal.jsonl", start(), epoch(1))
    assert not Journal.start(tmp_path, HEADER, MACHINE).resumed
    assert "journal.jsonl is of schema 1, expected 2" in capsys.readouterr().out


def test_a_start_that_was_not_written_to_its_end_is_written_again(tmp_path, capsys):
    path = interrupted(tmp_path)
    path.write_bytes(path.read_bytes()[:30])
    assert not Journal.start(tmp_path, HEADER, MACHINE).resumed
    assert capsys.readouterr().out == ""
    assert read_journal(path).epochs == []


def test_the_work_folder_goes_at_one_moment(tmp_path, monkeypatch):
    """A process that ends while it is removed leaves all of it or nothing under its name."""
    run = Journal.start(tmp_path / "k1", HEADER)
    (tmp_path / "k1" / "checkpoints").mkdir()
    seen = []
    monkeypatch.setattr("graft.finished_work.reached", lambda point: seen.append((point, sorted(os.listdir(tmp_path)))))
    run.move_to(tmp_path / "journal.jsonl")
    assert seen == [("rename work folder", [".k1.over", "journal.jsonl"])]
    assert os.listdir(tmp_path) == ["journal.jsonl"]
    (tmp_path / ".k1.over" / "checkpoints").mkdir(parents=True)  # of one that was killed there
    Journal.start(tmp_path / "k1", HEADER).move_to(tmp_path / "journal.jsonl")
    assert os.listdir(tmp_path) == ["journal.jsonl"]


WRITER = """\
import json, pathlib, sys
from graft.journal import Journal
run = Journal.start(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]))
print("resumed" if run.resumed else "begun", flush=True)
for number in range(1, int(sys.argv[3]) + 1):
    run.epoch(number, "frozen", {"loss": 1 / number})
print("recorded", flush=True)
sys.stdin.read()
run.finish({}, {})
run.move_to(pathlib.Path(sys.argv[4]))
"""


def writer(folder, epochs, destination):
    arguments = [str(folder), json.dumps(HEADER), str(epochs), str(destination)]
    command = [sys.executable, "-c", WRITER, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_second_writer_waits_and_goes_on_where_the_first_was_killed(tmp_path):
    first = writer(tmp_path / "work", 3, tmp_path / "first.jsonl")
    assert [first.stdout.readline() for _ in range(2)] == ["begun\n", "recorded\n"]
    second = writer(tmp_path / "work", 5, tmp_path / "second.jsonl")
    assert "another process trains this model" in second.stdout.readline()
    started = read_journal(tmp_path / "work" / "journal.jsonl").header["started"]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    said, _ = second.communicate(timeout=60)
    assert "3 epochs recorded" in said
    assert said.splitlines()[-2:] == ["resumed", "recorded"]
    record = read_journal(tmp_path / "second.jsonl")
    assert (record.header["started"], len(record.epochs)) == (started, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["second.jsonl"]


def test_a_full_disk_tears_no_line(tmp_path, monkeypatch):
    journal, write_bytes = Journal.start(tmp_path, HEADER), os.write

    def full(descriptor, content):
        if len(content) > 10:
            return write_bytes(descriptor, content[:10])
        raise OSError(errno.ENOSPC, "no space left")

    journal.epoch(1, "train", {"loss": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(2):
            with pytest.raises(OSError, match="no space left"):
                journal.epoch(2, "train", {"loss": 1.0})
    journal.epoch(2, "train", {"loss": 0.5})
    assert [epoch["epoch"] for epoch in read_journal(tmp_path / "journal.jsonl").epochs] == [1, 2]
