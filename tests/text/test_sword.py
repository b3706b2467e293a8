"""Reading of a SWORD module and of a Debian package, both written here by the format's description."""

import hashlib
import io
import struct
import tarfile
import zlib

import pytest

from fklit.text.debian import DebianPackage, fetch_package, unpack_package
from fklit.text.sword import Verse, plain_text, read_module

OT = [
    [b'<milestone type="x-importer" subType="x-osis2mod"/>'],
    [
        b'<div sID="gen1" type="front"/> A preface. <div eID="gen1" type="front"/>',
        b'<div canonical="true" osisID="Gen" sID="gen2" type="book"/> <title>Genesis</title>',
        b'<chapter osisID="Gen.1" sID="Gen.1"/>',
        '<w lemma="x">In</w> the beginning<note place="foot">1 <b>n</b></note>God\u2019s light &amp; day.'.encode(),
        b"",
        b'<l level="1" sID="a"/>And <w>so</w>,<l eID="a"/> <l sID="b"/>it was.<chapter eID="Gen.1" osisID="Gen.1"/>'
        b'<div eID="gen2" type="book" osisID="Gen"/> <div sID="gen9" type="glossary"/>abba Abba.',
    ],
]
NT = [
    [
        b'<chapter n="2" osisID="Matt.2" sID="Matt.2"/>',
        b'<title type="x">Heading</title>Now <divineName>Lord</divineName>.',
    ]
]


def write_module(folder, testament, blocks):
    index, entries, packed = b"", b"", b""
    for number, verses in enumerate(blocks):
        raw = b"".join(verses)
        piece = zlib.compress(raw)
        index += struct.pack("<III", len(packed), len(piece), len(raw))
        packed += piece
        offset = 0
        for verse in verses:
            entries += struct.pack("<IIH", number, offset, len(verse))
            offset += len(verse)
    for ending, content in (("bzs", index), ("bzv", entries), ("bzz", packed)):
        (folder / f"{testament}.{ending}").write_bytes(content)


@pytest.fixture
def module(tmp_path):
    write_module(tmp_path, "ot", OT)
    write_module(tmp_path, "nt", NT)
    return tmp_path


def test_verses_without_notes_headings_and_what_follows_a_book(module):
    assert list(read_module(module)) == [
        Verse("Gen.1", 1, "In the beginning God\u2019s light & day."),
        Verse("Gen.1", 2, ""),
        Verse("Gen.1", 3, "And so, it was."),
        Verse("Matt.2", 1, "Now Lord."),
    ]


def test_plain_text_closes_no_gap():
    assert plain_text("<w>a</w><w>b</w> <q/>c") == "ab c"


def test_damaged_modules_are_refused(module):
    content = (module / "ot.bzz").read_bytes()
    (module / "ot.bzz").write_bytes(content[:-9])
    with pytest.raises(ValueError, match=r"expected a SWORD module in zText format, got .*ot\.bzz, which is truncated"):
        list(read_module(module))
    (module / "ot.bzz").unlink()
    with pytest.raises(FileNotFoundError, match="expected a SWORD module"):
        list(read_module(module))


def write_package(path, files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.getvalue())):
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        archive += header + content + b"\n" * (len(content) % 2)
    path.write_bytes(archive)
    return hashlib.sha256(archive).hexdigest()


def test_files_of_a_package_are_unpacked(tmp_path):
    write_package(tmp_path / "a.deb", {"./usr/share/x/one": b"1", "./usr/share/x/../../two": b"2", "./etc/three": b"3"})
    (tmp_path / "out").mkdir()
    unpack_package(tmp_path / "a.deb", tmp_path / "out", below="usr/share/x")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {"one": b"1", "two": b"2"}
    with pytest.raises(ValueError, match="expected files below usr/share/y, got none"):
        unpack_package(tmp_path / "a.deb", tmp_path / "out", below="usr/share/y")
    (tmp_path / "b.deb").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is no ar archive"):
        unpack_package(tmp_path / "b.deb", tmp_path / "out", below="usr/share/x")


def test_packages_are_fetched_once_and_compared(tmp_path):
    mirror = tmp_path / "mirror" / "pool"
    mirror.mkdir(parents=True)
    package = DebianPackage("pool/a.deb", write_package(mirror / "a.deb", {"./usr/one": b"1"}))
    address = (tmp_path / "mirror").as_uri()
    found = fetch_package(package, tmp_path / "data", mirror=address)
    assert found.read_bytes() == (mirror / "a.deb").read_bytes()
    (mirror / "a.deb").unlink()
    assert fetch_package(package, tmp_path / "data", mirror=address) == found
    with pytest.raises(RuntimeError, match=r"expected a\.deb from .*check the network"):
        fetch_package(package, tmp_path / "empty", mirror=address)
    found.write_bytes(b"other")
    with pytest.raises(ValueError, match="expected sha256"):
        fetch_package(package, tmp_path / "data", mirror=address)


def test_the_corpus_is_fetched_split_and_tokenized(tmp_path, monkeypatch):
    from fklit.data.__main__ import main
    from fklit.text import TextDataModule, corpus

    module = tmp_path / "module"
    module.mkdir()
    chapters = [
        entry
        for number in range(1, 41)
        for entry in (
            f'<chapter osisID="Gen.{number}" sID="x{number}"/>'.encode(),
            f"<w>God</w> said, Go{number}; and they went. They saw it.".encode(),
        )
    ]
    write_module(module, "ot", [[b'<milestone subType="x-osis2mod"/>', *chapters]])
    write_module(module, "nt", NT)
    mirror = tmp_path / "mirror" / "pool"
    mirror.mkdir(parents=True)
    files = {f"./{corpus._FOLDER}/{path.name}": path.read_bytes() for path in module.iterdir()}
    package = DebianPackage("pool/a.deb", write_package(mirror / "a.deb", files))
    monkeypatch.setattr(corpus, "PACKAGE", package)
    monkeypatch.setattr(corpus, "VOCABULARY_SIZE", 20)
    fetch = corpus.fetch_package
    monkeypatch.setattr(corpus, "fetch_package", lambda one, root: fetch(one, root, mirror=mirror.parent.as_uri()))
    data = tmp_path / "data"
    assert main(["fetch", "text", str(data)]) == 0
    assert main(["verify", "text", str(data)]) == 0
    held_out = (data / "held_out.txt").read_text().split("\n\n")
    assert [chapter.splitlines()[0] for chapter in held_out] == ["God said, Go11;", "God said, Go31;"]
    assert (data / "train.txt").read_text().count("\n\n") == 39 - 1
    reading = TextDataModule(str(data), 4, length=6)
    reading.setup("fit")
    assert next(iter(reading.train_dataloader()))["tokens"].shape == (4, 6)
    (data / "a.deb").write_bytes(b"")
    assert main(["verify", "text", str(data)]) == 1
