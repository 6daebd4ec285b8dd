"""Fetching from a real server that knows ranges, loses connections, and sends the wrong file."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import groundup
from training.data import download as download_module
from training.data.config import FetchConfig
from training.data.download import download
from training.data.errors import DataError
from training.data.fetch import NOTE, overview, run
from training.data.labelled import read_examples
from training.data.registry import REGISTRY, DataSet, RemoteFile

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves one content; `faults` connections break after half of what they should send."""

    content = CONTENT
    faults = 0
    knows_ranges = True
    is_honest = True
    """Whether what it sends for a range is that range."""
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        content = self.server.content
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.knows_ranges else 0
        if self.server.status != 200 or (start and start >= len(content)):
            self.send_response(self.server.status if self.server.status != 200 else 416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = content[start if self.server.is_honest else 0 :]
        self.send_response(206 if start else 200)
        if start:
            first = start if self.server.is_honest else 0
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.server.faults:
            self.server.faults -= 1
            self.wfile.write(rest[: len(rest) // 2])
            self.close_connection = True
        else:
            self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def remote(server: Server, **changes: object) -> RemoteFile:
    known = {"name": "file.bin", "url": server.url, "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    return RemoteFile(**{**known, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_lost_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path, knows_ranges: bool) -> None:
    server.faults, server.knows_ranges = 2, knows_ranges
    download(remote(server), tmp_path / "file.bin", pause_s=0)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + half // 2 if knows_ranges else half}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_what_has_arrived_is_kept_for_the_next_run(server: Server, tmp_path: Path) -> None:
    server.faults = download_module.ATTEMPTS
    with pytest.raises(DataError, match=r"bytes are kept: run again to go on, or fetch it yourself and add --from"):
        download(remote(server), tmp_path / "file.bin", pause_s=0)
    kept = (tmp_path / "file.bin.part").stat().st_size
    assert len(CONTENT) // 2 < kept < len(CONTENT)
    download(remote(server), tmp_path / "file.bin", pause_s=0)
    assert server.ranges[-1] == f"bytes={kept}-"
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_download_that_lacked_only_its_name_is_not_repeated(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(remote(server), tmp_path / "file.bin")
    assert server.ranges == []
    (tmp_path / "again.part").write_bytes(CONTENT)
    download(remote(server, size=None), tmp_path / "again")  # the server says that nothing is missing
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_remains_of_another_file_are_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    download(remote(server, size=None), tmp_path / "file.bin", pause_s=0)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"sha256": "0" * 64}, "checksum .* instead of 000"), ({"size": 5}, "1,024,000 bytes instead")],
)
def test_a_wrong_file_never_gets_its_name(
    server: Server, tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        download(remote(server, **wrong), tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_taken_for_a_lost_connection(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        download(remote(server), tmp_path / "file.bin", pause_s=0)
    assert len(server.ranges) == 1


def test_a_refusal_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match="404 Not Found; fetch it yourself and add --from"):
        download(remote(server), tmp_path / "file.bin")
    assert len(server.ranges) == 1


def test_a_server_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Connection refused.* add --from"):
        download(RemoteFile("x", "http://127.0.0.1:9/x"), tmp_path / "x", pause_s=0)


@pytest.fixture
def toy(server: Server, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A registered data set whose checksum nobody knows."""
    entry = DataSet("a toy", "public domain", (remote(server, sha256=None),))
    monkeypatch.setitem(REGISTRY, "toy", entry)
    return entry


def fetch_toy(folder: Path, *flags: str) -> int:
    return groundup.main(["data", "fetch", "toy", "--out", str(folder), *flags])


def test_a_first_download_without_a_known_checksum_is_trusted_said_and_remembered(
    toy: DataSet, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert fetch_toy(tmp_path) == 0
    assert "no checksum is known" in caplog.text
    note = json.loads((tmp_path / "toy" / NOTE).read_text())
    assert note["files"]["file.bin"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert note["files"]["file.bin"]["trusted by"] == "first use"
    assert (note["complete"], note["licence"]) == (True, "public domain")

    assert fetch_toy(tmp_path) == 0  # it is there
    assert len(server.ranges) == 1

    server.content = CONTENT[::-1]
    assert fetch_toy(tmp_path, "--overwrite") == 2
    assert "when it was fetched before" in capsys.readouterr().err
    assert not (tmp_path / "toy" / "file.bin").exists()


def test_a_local_file_is_taken_only_if_it_is_the_right_one(tmp_path: Path, data_dir: Path) -> None:
    source = data_dir / "the-verdict" / "the-verdict.txt"
    run(FetchConfig(name="the-verdict", out=tmp_path, from_file=source))
    assert (tmp_path / "the-verdict" / "the-verdict.txt").read_bytes() == source.read_bytes()
    with pytest.raises(DataError, match=r"1,115,394 bytes instead of 20,479; it is not the-verdict\.txt"):
        run(
            FetchConfig(
                name="the-verdict",
                out=tmp_path,
                from_file=data_dir / "tinyshakespeare" / "input.txt",
                overwrite=True,
            )
        )
    with pytest.raises(DataError, match=r"--from: .*gone: no such file"):
        run(FetchConfig(name="tinyshakespeare", out=tmp_path, from_file=tmp_path / "gone"))
    with pytest.raises(DataError, match="this set has 2 files; give the folder"):
        run(FetchConfig(name="tinystories", out=tmp_path, from_file=source))


def test_an_unknown_set_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nix: no such data set; there are the-verdict, tinyshakespeare"):
        run(FetchConfig(name="nix", out=tmp_path))


def test_the_list_says_licence_size_and_whether_a_checksum_is_known() -> None:
    text = overview()
    assert all(name in text and entry.licence in text for name, entry in REGISTRY.items())
    assert "2,250.3 MB" in text
    assert "no checksum known: the first download is trusted" in text


def register(monkeypatch: pytest.MonkeyPatch, server: Server, content: bytes, name: str, unpack: str) -> None:
    server.content = content
    file = RemoteFile(name, server.url, len(content), hashlib.sha256(content).hexdigest(), unpack)
    monkeypatch.setitem(REGISTRY, "toy", DataSet("a toy", "public domain", (file,)))


def test_messages_come_out_of_their_archive_as_a_table(
    monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("SMSSpamCollection", "ham\tHello\nspam\tWIN\n")
        archive.writestr("readme", "x")
    register(monkeypatch, server, packed.getvalue(), "sms.zip", "sms-spam")
    assert fetch_toy(tmp_path) == 0
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == ["SMSSpamCollection.tsv", NOTE]
    assert [example.label for example in read_examples(tmp_path / "toy" / "SMSSpamCollection.tsv")] == ["ham", "spam"]


def test_reviews_become_two_tables(monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("train/neg/0_3.txt", "train/pos/0_9.txt", "train/unsup/0_0.txt", "test/neg/0_1.txt", "README"):
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    register(monkeypatch, server, packed.getvalue(), "imdb.tar.gz", "imdb")
    assert fetch_toy(tmp_path) == 0
    examples = read_examples(tmp_path / "toy" / "train.csv")
    assert [(example.text, example.label) for example in examples] == [
        ("train/neg/0_3.txt", "neg"),
        ("train/pos/0_9.txt", "pos"),
    ]
    assert (tmp_path / "toy" / "test.csv").read_text().splitlines() == ["text,label", "test/neg/0_1.txt,neg"]


def test_books_lose_what_project_gutenberg_puts_around_them(
    monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path
) -> None:
    book = (
        "\ufeffHeader\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\nIt was a dark night.\n\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK X ***\nLicence"
    )
    register(monkeypatch, server, book.encode(), "x.txt", "gutenberg")
    assert fetch_toy(tmp_path) == 0
    assert (tmp_path / "toy" / "x.txt").read_text() == "It was a dark night.\n"
    register(monkeypatch, server, b"no book", "x.txt", "gutenberg")
    assert fetch_toy(tmp_path / "other") == 2


def test_a_broken_archive_is_refused(monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path) -> None:
    register(monkeypatch, server, b"no archive", "sms.zip", "sms-spam")
    assert fetch_toy(tmp_path) == 2


def test_bytes_that_were_not_asked_for_are_not_appended(server: Server, tmp_path: Path) -> None:
    server.faults, server.is_honest = 1, False
    download(remote(server, size=None, sha256=None), tmp_path / "file.bin", pause_s=0)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_only_what_is_missing_of_a_set_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tuple(remote(server, name=name) for name in ("a.bin", "b.bin"))
    monkeypatch.setitem(REGISTRY, "toy", DataSet("a toy", "public domain", files))
    assert fetch_toy(tmp_path) == 0
    (tmp_path / "toy" / "b.bin").unlink()
    assert fetch_toy(tmp_path) == 0
    assert (tmp_path / "toy" / "b.bin").read_bytes() == CONTENT
    assert len(server.ranges) == 3
