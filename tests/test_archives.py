import bz2
import gzip
import io
import lzma
import os
import random
import stat
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
from types import SimpleNamespace

import pytest

from graft import unpacking
from graft.archives import archive, unpack
from graft.records import SourceError

PHOTOS = {"ants/1.png": b"one", "ants/old/2.JPG": b"two", "bees/3.png": b"three"}


def write_zip(path, members=PHOTOS, compression=zipfile.ZIP_DEFLATED):
    """Members are names with bytes, or pairs of a ZipInfo (or a name) and bytes."""
    pairs = members.items() if isinstance(members, dict) else members
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as target:
        warnings.simplefilter("ignore")  # names that stand twice
        for name, content in pairs:
            target.writestr(name, content)
    return path


def zip_info(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def tar_info(name, size=0, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar_bytes(members=PHOTOS, **options):
    """Members are names with bytes, or pairs of a TarInfo and bytes."""
    pairs = (
        [(tar_info(name, len(data)), data) for name, data in members.items()] if isinstance(members, dict) else members
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as target:
        for info, data in pairs:
            target.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write(path, data):
    path.write_bytes(data)
    return path


def scratch_of(tmp_path):
    (tmp_path / "scratch").mkdir(exist_ok=True)
    return tmp_path / "scratch"


def read(path, tmp_path):
    rejects = []
    found = [(r.source, r.label, r.split, r.read()) for r in archive(path, rejects, scratch_of(tmp_path))]
    return found, [(reject.source, reject.reason) for reject in rejects]


def refused(path, tmp_path):
    """The message with which an archive is refused, once nothing is left of it."""
    before = {file for file in tmp_path.rglob("*") if "scratch" not in file.parts}
    with pytest.raises(SourceError) as caught:
        read(path, tmp_path)
    assert list(scratch_of(tmp_path).iterdir()) == []
    assert {file for file in tmp_path.rglob("*") if "scratch" not in file.parts} == before
    assert str(path) in str(caught.value)
    return str(caught.value)


EXPECTED = [
    ("ants/1.png", "ants", None, b"one"),
    ("ants/old/2.JPG", "ants", None, b"two"),
    ("bees/3.png", "bees", None, b"three"),
]


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param(lambda path: write_zip(path), id="zip"),
        pytest.param(lambda path: write_zip(path, compression=zipfile.ZIP_STORED), id="stored zip"),
        pytest.param(lambda path: write(path, tar_bytes()), id="tar"),
        pytest.param(lambda path: write(path, gzip.compress(tar_bytes())), id="tar.gz"),
        pytest.param(lambda path: write(path, bz2.compress(tar_bytes())), id="tar.bz2"),
        pytest.param(lambda path: write(path, lzma.compress(tar_bytes())), id="tar.xz"),
        pytest.param(lambda path: write(path, tar_bytes(format=tarfile.GNU_FORMAT)), id="GNU tar"),
        pytest.param(lambda path: write(path, tar_bytes(format=tarfile.USTAR_FORMAT)), id="ustar"),
    ],
)
def test_an_archive_is_read_as_the_folder_in_it_whatever_its_name_says(tmp_path, pack):
    assert read(pack(tmp_path / "photos.data"), tmp_path) == (EXPECTED, [])


@pytest.mark.parametrize(
    ("names", "sources"),
    [
        pytest.param(["photos/ants/1.png", "photos/bees/2.png"], ["ants/1.png", "bees/2.png"], id="one folder"),
        pytest.param(["a/b/ants/1.png", "a/b/bees/2.png", "README.md"], ["ants/1.png", "bees/2.png"], id="two"),
        pytest.param(["./ants/1.png", "./bees//2.png"], ["ants/1.png", "bees/2.png"], id="empty steps"),
        pytest.param(["x/val/ants/1.png", "x/val/bees/2.png"], ["val/ants/1.png", "val/bees/2.png"], id="one split"),
        pytest.param(["ants/1.png", "ants/2.png"], ["ants/1.png", "ants/2.png"], id="a class without folders in it"),
        pytest.param(["ants/old/1.png", "2.png"], ["ants/old/1.png"], id="an image beside the folder"),
        pytest.param(
            [
                "__MACOSX/ants/._1.png",
                ".DS_Store",
                "photos/.DS_Store",
                "photos/ants/._1.png",
                "photos/ants/1.png",
                "photos/bees/Thumbs.db",
                "photos/bees/2.png",
            ],
            ["ants/1.png", "bees/2.png"],
            id="what systems add",
        ),
    ],
)
def test_folders_that_wrap_the_class_folders_are_entered(tmp_path, names, sources):
    members = dict.fromkeys(names, b"x")
    for path in (write_zip(tmp_path / "a.zip", members), write(tmp_path / "a.tar", tar_bytes(members))):
        assert [source for source, *_ in read(path, tmp_path)[0]] == sources


def test_splits_empty_classes_and_what_is_no_image_are_seen(tmp_path):
    members = {"Train/ants/1.png": b"1", "Train/bees/": b"", "val/ants/2.png": b"2", "val/notes.txt": b"", "a.gif": b""}
    found, rejects = read(write_zip(tmp_path / "a.zip", members | {"val/ants/3.txt": b""}), tmp_path)
    assert [(source, split) for source, _, split, _ in found] == [
        ("Train/ants/1.png", "train"),
        ("val/ants/2.png", "validation"),
    ]
    assert sorted(rejects) == [("a.gif", "outside-class-folder"), ("val/ants/3.txt", "unsupported-extension")]
    assert (unpack(tmp_path / "a.zip", scratch_of(tmp_path)) / "Train" / "bees").is_dir()


def test_names_in_other_alphabets_and_separators_are_kept(tmp_path):
    names = ["Bären/größe 1.png", "蜂/2.png"]
    unflagged = zipfile.ZipInfo("蜂/2.png")
    path = write_zip(tmp_path / "macos.zip", {"Bären/größe 1.png": b"", unflagged: b""}.items())
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(signature)
        while start >= 0:
            data[start + place + 1] &= ~0x08  # the flag that says UTF-8
            start = data.find(signature, start + 1)
    assert [source for source, *_ in read(write(path, bytes(data)), tmp_path)[0]] == names
    assert [
        source for source, *_ in read(write(tmp_path / "a.tar", tar_bytes(dict.fromkeys(names, b""))), tmp_path)[0]
    ] == names
    windows = write_zip(tmp_path / "windows.zip", {"Tiere\\ants\\1.png": b"", "Tiere\\bees\\": b""})
    assert [source for source, *_ in read(windows, tmp_path)[0]] == ["ants/1.png"]
    dos = write_zip(tmp_path / "dos.zip", {"B@ren/1.png": b"", "b/1.png": b""})
    write(dos, dos.read_bytes().replace(b"@", b"\x84"))
    assert [source for source, *_ in read(dos, tmp_path)[0]] == ["Bären/1.png", "b/1.png"]
    latin = write(
        tmp_path / "latin.tar",
        tar_bytes({"Bär/1.png": b"", "b/1.png": b""}, encoding="latin-1", format=tarfile.GNU_FORMAT),
    )
    assert [source for source, *_ in read(latin, tmp_path)[0]] == ["B\\xe4r/1.png", "b/1.png"]


def test_modes_and_times_of_an_archive_are_not_taken_over(tmp_path):
    info = tar_info("ants/1.png", 1, mode=0o6777)
    path = write(tmp_path / "a.tar", tar_bytes([(info, b"x"), (tar_info("bees/", kind=tarfile.DIRTYPE, mode=0), b"")]))
    top = unpack(path, scratch_of(tmp_path))
    assert not (top / "ants/1.png").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)
    assert (top / "bees").stat().st_mode & stat.S_IRWXU == stat.S_IRWXU


def test_an_archive_is_unpacked_once_and_anew_when_it_changes(tmp_path):
    path = write_zip(tmp_path / "a.zip")
    first = unpack(path, scratch_of(tmp_path))
    (first / "bees/3.png").write_bytes(b"seen")
    assert read(path, tmp_path)[0][2][3] == b"seen"
    write_zip(path, {"ants/1.png": b"1", "bees/22.png": b"2"})
    assert [source for source, *_ in read(path, tmp_path)[0]] == ["ants/1.png", "bees/22.png"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("/etc/ants/1.png", "has an absolute name", id="absolute"),
        pytest.param("\\\\host\\ants\\1.png", "has an absolute name", id="of a network"),
        pytest.param("C:/ants/1.png", "has an absolute name", id="drive"),
        pytest.param("c:ants/1.png", "has an absolute name", id="relative to a drive"),
        pytest.param("../ants/1.png", "leads out of the archive", id="parent"),
        pytest.param("ants/../../../1.png", "leads out of the archive", id="parent within"),
        pytest.param("ants/..", "leads out of the archive", id="parent at the end"),
        pytest.param("ants\\..\\..\\1.png", "leads out of the archive", id="backslashes"),
        pytest.param(".hidden/../../1.png", "leads out of the archive", id="hidden"),
        pytest.param("ants/" + "x" * 300 + ".png", "cannot be written: File name too long", id="long"),
        pytest.param("x/" * 2500 + "1.png", "stands deeper than 100 folders", id="deep"),
    ],
)
def test_unsafe_names_are_refused(tmp_path, name, why):
    for path in (
        write_zip(tmp_path / "a.zip", {"bees/1.png": b"", name: b"x"}),
        write(tmp_path / "a.tar", tar_bytes({"bees/1.png": b"", name: b"x"})),
        write(tmp_path / "a.tgz", gzip.compress(tar_bytes({name: b"x"}, format=tarfile.GNU_FORMAT))),
    ):
        shown = name.replace("\\", "/") if path.suffix == ".zip" else name
        assert refused(path, tmp_path) == f"{path} is refused: {shown[:200]!r} {why}"


def test_names_with_a_nul_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"ants/1.png@.txt": b""})
    write(path, path.read_bytes().replace(b"@", b"\0"))
    assert "is refused: 'ants/1.png\\x00.txt' has a name that no file can have" in refused(path, tmp_path)
    info = tar_info("x", pax_headers={"path": "ants/1\0.png"})
    path = write(tmp_path / "a.tar", tar_bytes([(info, b"")], format=tarfile.PAX_FORMAT))
    assert "has a name that no file can have" in refused(path, tmp_path)


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        pytest.param(stat.S_IFLNK, "is a link", id="link"),
        pytest.param(stat.S_IFIFO, "is neither a file nor a folder", id="pipe"),
        pytest.param(stat.S_IFCHR, "is neither a file nor a folder", id="device"),
        pytest.param(stat.S_IFDIR, "is neither a file nor a folder", id="folder with a file's name"),
    ],
)
def test_zips_with_anything_but_files_and_folders_are_refused(tmp_path, mode, why):
    path = write_zip(tmp_path / "a.zip", [("bees/1.png", b""), (zip_info("ants/1.png", mode | 0o777), b"/etc/passwd")])
    assert refused(path, tmp_path) == f"{path} is refused: 'ants/1.png' {why}"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        pytest.param(tarfile.SYMTYPE, "is a link", id="link"),
        pytest.param(tarfile.LNKTYPE, "is a link", id="hard link"),
        pytest.param(tarfile.FIFOTYPE, "is neither a file nor a folder", id="pipe"),
        pytest.param(tarfile.CHRTYPE, "is neither a file nor a folder", id="character device"),
        pytest.param(tarfile.BLKTYPE, "is neither a file nor a folder", id="block device"),
        pytest.param(tarfile.GNUTYPE_SPARSE, "is neither a file nor a folder", id="sparse"),
        pytest.param(b"M", "is neither a file nor a folder", id="rest of another volume"),
    ],
)
def test_tars_with_anything_but_files_and_folders_are_refused(tmp_path, kind, why):
    members = [(tar_info("bees/1.png"), b""), (tar_info("ants/1.png", kind=kind, linkname="/etc/passwd"), b"")]
    path = write(tmp_path / "a.tar", tar_bytes(members, format=tarfile.GNU_FORMAT))
    assert refused(path, tmp_path) == f"{path} is refused: 'ants/1.png' {why}"


def test_a_link_cannot_redirect_what_follows_it(tmp_path):
    (tmp_path / "outside").mkdir()
    link = tar_info("ants", kind=tarfile.SYMTYPE, linkname=str(tmp_path / "outside"))
    path = write(tmp_path / "a.tar", tar_bytes([(link, b""), (tar_info("ants/1.png", 1), b"x")]))
    assert "'ants' is a link" in refused(path, tmp_path)


def test_links_in_hidden_folders_do_not_matter(tmp_path):
    link = tar_info(".git/hooks", kind=tarfile.SYMTYPE, linkname="/etc")
    members = [(link, b""), *((tar_info(name), b"") for name in ("ants/1.png", "bees/1.png"))]
    path = write(tmp_path / "a.tar", tar_bytes(members))
    assert len(read(path, tmp_path)[0]) == 2
    assert not list(scratch_of(tmp_path).rglob(".git"))


@pytest.mark.parametrize(
    ("names", "named"),
    [
        pytest.param(["ants/1.png", "bees/1.png", "ants/1.png"], "ants/1.png", id="twice"),
        pytest.param(["ants/1.png", "./ants//1.png"], "./ants//1.png", id="twice in other words"),
        pytest.param(["ants", "ants/1.png"], "ants/1.png", id="a file where a folder is needed"),
        pytest.param(["ants/1.png/2.png", "ants/1.png"], "ants/1.png", id="a folder where a file is needed"),
    ],
)
def test_members_that_stand_in_each_others_place_are_refused(tmp_path, names, named):
    pairs = [(name, b"x") for name in names]
    for path in (
        write_zip(tmp_path / "a.zip", pairs),
        write(tmp_path / "a.tar", tar_bytes([(tar_info(name, 1), data) for name, data in pairs])),
    ):
        message = f"{path} is refused: {named!r} stands in it twice, or as a file and as a folder"
        assert refused(path, tmp_path) == message


def patched(data, signature, offset, layout, value):
    """Bytes with a number replaced in the first record that begins with this signature."""
    data = bytearray(data)
    struct.pack_into(layout, data, data.index(signature) + offset, value)
    return bytes(data)


CENTRAL = b"PK\x01\x02"


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        pytest.param(8, 1, "is refused: 'ants/1.png' is encrypted", id="encrypted"),
        pytest.param(8, 0x40, "is refused: 'ants/1.png' is encrypted", id="strongly encrypted"),
        pytest.param(8, 0x20, "is damaged or cannot be unpacked: compressed patched data", id="a patch"),
        pytest.param(10, 12, "'ants/1.png' is neither stored nor deflated, but of compression method 12", id="bzip2"),
        pytest.param(10, 99, "of compression method 99", id="a compression that no one knows"),
        pytest.param(6, 99, "is damaged or cannot be unpacked: zip file version 9.9", id="a version of the future"),
        pytest.param(16, 7, "is damaged or cannot be unpacked: Bad CRC-32 for file 'ants/1.png'", id="wrong checksum"),
        pytest.param(
            24, 1, "is damaged or cannot be unpacked: Bad CRC-32 for file 'ants/1.png'", id="more than it says"
        ),
        pytest.param(42, 9, "is damaged or cannot be unpacked: Bad magic number for file header", id="elsewhere"),
    ],
)
def test_zips_whose_directory_lies_are_refused(tmp_path, offset, value, message):
    data = write_zip(tmp_path / "a.zip", {"ants/1.png": b"one"}).read_bytes()
    assert message in refused(write(tmp_path / "a.zip", patched(data, CENTRAL, offset, "<H", value)), tmp_path)


def test_a_zip_that_calls_a_member_by_two_names_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip")
    write(path, path.read_bytes().replace(b"ants/1.png", b"bugs/1.png", 1))
    assert "File name in directory 'ants/1.png' and header b'bugs/1.png' differ" in refused(path, tmp_path)


BOMB = b"\0" * (unpacking.HARMLESS + 1)


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param(lambda path: write_zip(path, {"ants/1.png": BOMB}), id="zip"),
        pytest.param(lambda path: write_zip(path, {f"ants/{i}.png": BOMB[::8] for i in range(8)}), id="zip of many"),
        pytest.param(lambda path: write_zip(path, {".hidden/1.png": BOMB}), id="hidden"),
        pytest.param(lambda path: write(path, gzip.compress(tar_bytes({"ants/1.png": BOMB}))), id="tar.gz"),
        pytest.param(lambda path: write(path, bz2.compress(tar_bytes({"ants/1.png": BOMB}))), id="tar.bz2"),
        pytest.param(lambda path: write(path, lzma.compress(tar_bytes({"ants/1.png": BOMB}))), id="tar.xz"),
        pytest.param(lambda path: write(path, lzma.compress(tar_bytes({".x": BOMB}))), id="hidden in a tar"),
        pytest.param(lambda path: write(path, gzip.compress(tar_bytes() + BOMB)), id="behind the end of a tar"),
    ],
)
def test_bombs_are_refused(tmp_path, pack):
    path = pack(tmp_path / "photos.zip")
    size = path.stat().st_size / 2**10
    assert refused(path, tmp_path) == (
        f"{path} is a decompression bomb: it unpacks to more than 200 times its {size:.1f} KiB; "
        "extract it yourself and use source: folder if you trust it"
    )


def test_a_bomb_is_refused_as_soon_as_it_is_one(tmp_path):
    for name in ("ants/1.png", ".hidden/1.png"):
        cut = gzip.compress(tar_bytes({name: BOMB * 2}))[:-99]
        assert "is a decompression bomb" in refused(write(tmp_path / "a.tgz", cut), tmp_path)


def test_bytes_are_counted_whatever_was_said_of_them(tmp_path):
    writer = unpacking.Writer(write_zip(tmp_path / "a.zip"), scratch_of(tmp_path))
    writer.write("1", ("1",), io.BytesIO(BOMB[:-1]))
    with pytest.raises(SourceError, match="is a decompression bomb"):
        writer.write("2", ("2",), io.BytesIO(b"xx"))


def test_a_negative_size_is_no_empty_file(tmp_path):
    path = write(tmp_path / "a.tar", FILE + header("bees/1.png", -1) + END)
    assert "'bees/1.png' is neither a file nor a folder" in refused(path, tmp_path)


def test_a_zip_bomb_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking.Writer, "write", lambda *_: pytest.fail("written"))
    refused(write_zip(tmp_path / "a.zip", {"ants/1.png": b"", "bees/1.png": BOMB}), tmp_path)


def test_a_large_archive_is_measured_by_its_ratio(tmp_path):
    noise = random.Random(0).randbytes(2**20)
    members = {"ants/1.png": noise, "bees/1.png": BOMB * 2}
    assert len(read(write_zip(tmp_path / "a.zip", members), tmp_path)[0]) == 2
    assert len(read(write(tmp_path / "a.tgz", gzip.compress(tar_bytes(members))), tmp_path)[0]) == 2


def test_members_that_share_their_bytes_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"ants/1.png": b"x" * 1000}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    start, end = data.index(CENTRAL), data.index(b"PK\x05\x06")
    directory = b"".join(data[start:end].replace(b"ants/1", b"ants/%d" % index) for index in range(2, 9))
    counts = struct.pack("<HHII", 7, 7, len(directory), start)
    write(path, data[:start] + directory + data[end : end + 8] + counts + data[end + 20 :])
    assert refused(path, tmp_path) == f"{path} is refused: its members overlap"


def test_archives_that_the_disk_cannot_hold_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda path: SimpleNamespace(free=2048))
    for path in (
        write_zip(tmp_path / "a.zip", {"ants/1.png": b"x" * 3000}),
        write(tmp_path / "a.tar", tar_bytes({"ants/1.png": b"x" * 3000})),
    ):
        assert refused(path, tmp_path).startswith(
            f"{path} unpacks to more than the 2.0 KiB that are free in {tmp_path}"
        )


def header(name, size, kind=tarfile.REGTYPE):
    return tar_info(name, size, kind).tobuf(tarfile.GNU_FORMAT)


END = b"\0" * 1024
FILE = header("ants/1.png", 3) + b"one".ljust(512, b"\0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(
            FILE + header("p", 2**33, b"x"), "a member's headers claim more than 65536 bytes", id="pax claims"
        ),
        pytest.param(
            FILE + header("p", 2**33, b"g"), "a member's headers claim more than 65536 bytes", id="global pax"
        ),
        pytest.param(FILE + header("p", 2**33, b"L"), "a member's headers claim more than 65536 bytes", id="long name"),
        pytest.param(
            FILE + (header("p", 1, b"L") + b"x".ljust(512)) * 500, "headers claim more than 65536", id="names of names"
        ),
        pytest.param(FILE + header(".x", -1024) + END, "a header points backwards", id="negative size"),
        pytest.param(FILE + header("a.png", -(2**40), b"L"), "headers claim more than", id="negative name"),
        pytest.param(FILE + header("bees/1.png", 2**40) + END, "it ends too early", id="a size that is not there"),
        pytest.param(FILE + header(".x", 2**40) + END, "it ends too early", id="hidden, a size that is not there"),
        pytest.param(FILE, "it ends too early", id="no end"),
        pytest.param((FILE + END)[:700], "it ends too early", id="cut in a file"),
        pytest.param(FILE + b"rubbish".ljust(512) + END, "a header is damaged", id="damaged header"),
        pytest.param(FILE + END + FILE + END, "something follows its end", id="a second tar behind it"),
        pytest.param(gzip.compress(FILE + END)[:-20], "Compressed file ended before", id="cut gzip"),
        pytest.param(gzip.compress(FILE + END)[:-8] + bytes(8), "CRC check failed", id="damaged gzip"),
        pytest.param(lzma.compress(FILE + END)[:-20], "Compressed file ended before", id="cut xz"),
        pytest.param(bz2.compress(FILE + END)[:-20], "Compressed file ended before", id="cut bzip2"),
        pytest.param(b"BZh9" + bytes(600), "Invalid data stream", id="bzip2 by its start alone"),
        pytest.param(b"PK\x03\x04" + bytes(600), "File is not a zip file", id="zip by its start alone"),
    ],
)
def test_damaged_and_lying_archives_are_refused(tmp_path, data, message):
    path = write(tmp_path / "a.bin", data)
    received = refused(path, tmp_path)
    assert received.startswith(f"{path} is damaged or cannot be unpacked: ")
    assert message in received


def test_headers_do_not_pile_up_in_memory(tmp_path):
    data = b""
    for index in range(100):
        record = f" {index:03d}={'x' * 60_000}\n".encode()
        record = str(len(record) + 5).encode() + record
        data += header("g", len(record), b"g") + record.ljust(-(-len(record) // 512) * 512, b"\0")
        data += header(f"ants/{index}.png", 0)
    path = write(tmp_path / "a.tar", data + END)
    del data
    tracemalloc.start()
    assert len(list(unpack(path, scratch_of(tmp_path)).rglob("*.png"))) == 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_sparse_map_without_end_is_refused(tmp_path):
    info = tar_info("ants/1.png", 512, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    data = tar_bytes([(info, b"999999999999\n".ljust(512, b"\0"))], format=tarfile.PAX_FORMAT)
    assert "is damaged" in refused(write(tmp_path / "a.tar", data), tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello", id="text"),
        pytest.param(b"\x89PNG\r\n" + bytes(range(256)) * 9, id="an image"),
        pytest.param(gzip.compress(b"hello"), id="compressed text"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path, data):
    path = write(tmp_path / "photos.zip", data)
    assert refused(path, tmp_path) == f"{path} is neither a zip nor a tar archive (plain, gzip, bzip2 or xz)"


def test_what_is_no_file_is_refused_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    assert refused(tmp_path, tmp_path).endswith("must be a zip or tar archive, received a folder")
    assert refused(tmp_path / "nowhere.zip", tmp_path).endswith(
        "must be a zip or tar archive, received what does not exist"
    )
    assert refused(tmp_path / "pipe.zip", tmp_path).endswith("must be a zip or tar archive, received what is no file")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param([], "has no class folders; images belong into PATH/<class>/", id="nothing"),
        pytest.param(["1.png"], "has no class folders; images belong into PATH/<class>/", id="no class folders"),
        pytest.param(
            ["train/a/1.png", "bees/1.png"], "has train/ with folders in it beside bees: splits or classes?", id="both"
        ),
    ],
)
def test_archives_without_class_folders_are_refused_by_their_own_name(tmp_path, names, message):
    for path in (
        write_zip(tmp_path / "a.zip", dict.fromkeys(names, b"")),
        write(tmp_path / "a.tar", tar_bytes(dict.fromkeys(names, b""))),
    ):
        with pytest.raises(SourceError) as caught:
            read(path, tmp_path)
        assert str(caught.value) == f"{path} {message}".replace("PATH", str(path))


def test_no_damage_whatever_brings_anything_but_a_refusal(tmp_path):
    numbers = random.Random(0)
    path, scratch = tmp_path / "a.bin", scratch_of(tmp_path)
    originals = [write_zip(path).read_bytes(), tar_bytes(), tar_bytes(format=tarfile.GNU_FORMAT), FILE + END]
    originals += [gzip.compress(originals[1]), lzma.compress(originals[1]), bz2.compress(originals[1])]
    refusals = 0
    for turn in range(400):
        data = bytearray(originals[turn % len(originals)])
        for _ in range(numbers.randint(1, 4)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        try:
            unpack(write(path, bytes(data[: numbers.choice([None, None, numbers.randrange(len(data))])])), scratch)
        except SourceError:
            refusals += 1
    assert 200 < refusals < 400
    assert {file.name for file in tmp_path.iterdir()} == {"a.bin", "scratch"}
