"""Fetches what is free to fetch of a data set, and says where to ask for the rest:

    python -m m3vit.data.fetch pascal --root DIR
    python -m m3vit.data.fetch nyud --root DIR --archive NYUD_MT.tgz --checksum sha256:…

Nothing is unpacked before its checksum is right. A download that broke off goes on where it was, so does unpacking.
An archive can only write files below the root: names that lead out of it are an error, links are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from m3vit.data import folders

BLOCK = 1 << 20
TRIES = 5


class FetchError(Exception):
    """What could not be fetched, and why."""


@dataclass(frozen=True)
class Archive:
    url: str
    checksum: str  # KIND:HEX, a kind that hashlib knows
    places: Mapping[str, str]  # by the beginning of a name in the archive, the folder it stands for; others stay packed


@dataclass(frozen=True)
class Source:
    archives: tuple[Archive, ...]  # free to fetch, with a checksum that is published
    rest: str  # where to ask for what these do not have
    layout: str
    top: str = ""  # the folder that is the root, in archives of the whole


SOURCES = {
    "nyud": Source(
        (),
        "NYUD_MT.tgz has no published checksum, and its place asks for a confirmation in a browser: follow the link "
        "in data/nyud.py of github.com/SimonVandenhende/Multi-Task-Learning-PyTorch.",
        folders.Nyud.LAYOUT,
        "NYUD_MT/",
    ),
    "pascal": Source(
        (
            Archive(
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
                "md5:da459979d0c395079b5c75ee67908abb",
                {"VOCdevkit/VOC2010/JPEGImages/": "JPEGImages/"},
            ),
        ),
        "The labels are in PASCAL_MT.tgz, which has no published checksum: follow the link in data/pascal_context.py "
        "of github.com/SimonVandenhende/Multi-Task-Learning-PyTorch. It has the pictures too.",
        folders.Pascal.LAYOUT,
        "PASCAL_MT/",
    ),
    "cityscapes": Source(
        (),
        "Cityscapes is given to those who register at www.cityscapes-dataset.com. The files that are needed are "
        "leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip, disparity_trainvaltest.zip, camera_trainvaltest.zip.",
        folders.Cityscapes.LAYOUT,
    ),
}


def digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def verify(path: Path, checksum: str) -> None:
    kind, colon, wanted = checksum.partition(":")
    if not colon or kind not in hashlib.algorithms_guaranteed or kind.startswith("shake"):
        raise FetchError(f"{checksum!r}: a checksum is KIND:HEX, for example sha256:…")
    found = digest(path, kind)
    if found != wanted.lower():
        raise FetchError(f"{path.name} has {kind} {found}, not {wanted.lower()}")


def download(url: str, path: Path, checksum: str) -> None:
    """To a file, which is there only when it is whole and right. Until then it is PATH.part."""
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise FetchError(f"{url}: not of http, https or file")
    if path.exists():
        verify(path, checksum)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(TRIES):
        had = part.stat().st_size if part.exists() else 0
        try:
            if _more(url, part):
                break
        except (OSError, http.client.HTTPException) as error:
            got = part.stat().st_size if part.exists() else 0
            if got <= had or attempt == TRIES - 1:
                raise FetchError(f"{url}: {error}") from error
    else:
        raise FetchError(f"{url}: broke off {TRIES} times; the same command goes on from there")
    try:
        verify(part, checksum)
    except FetchError:
        part.unlink()  # what it was added to may have been of another version
        raise
    part.replace(path)


def _more(url: str, part: Path) -> bool:
    """Adds to the part what is missing of it; whether it is whole now."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        reply = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return True  # there is no more
        raise
    with reply:
        goes_on = reply.status == http.HTTPStatus.PARTIAL_CONTENT
        start = have if goes_on else 0
        length = reply.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        with (
            part.open("ab" if goes_on else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar,
        ):
            while block := reply.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    return total is None or part.stat().st_size >= total


@contextmanager
def opened(path: Path) -> Iterator[Iterator[tuple[str, int, IO[bytes]]]]:
    """The files of an archive: name, size and content."""

    def of_zip(archive: zipfile.ZipFile) -> Iterator[tuple[str, int, IO[bytes]]]:
        for info in archive.infolist():
            is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
            if not info.is_dir() and not is_link:
                with archive.open(info) as content:
                    yield info.filename, info.file_size, content

    def of_tar(archive: tarfile.TarFile) -> Iterator[tuple[str, int, IO[bytes]]]:
        for info in archive:
            content = archive.extractfile(info) if info.isreg() else None
            if content:
                with content:
                    yield info.name, info.size, content

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                yield of_zip(packed)
        else:
            with tarfile.open(path) as tar:
                yield of_tar(tar)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise FetchError(f"{path}: {error}") from error


def unpack(path: Path, root: Path, places: Mapping[str, str]) -> int:
    """Writes an archive's files below the root; how many. Those that are there in their size are not written again."""
    count = 0
    with opened(path) as files:
        for name, size, content in files:
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
                raise FetchError(f"{path.name}: {name!r} does not stay in the folder")
            start = next((s for s in places if pure.as_posix().startswith(s)), None)
            if start is None:
                continue
            target = root / places[start] / pure.as_posix()[len(start) :]
            count += 1
            if target.is_file() and target.stat().st_size == size:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            with part.open("wb") as file:
                shutil.copyfileobj(content, file, BLOCK)
            part.replace(target)
    return count


def fetch(archive: Archive, root: Path) -> int:
    """Downloads, checks and unpacks; how many files there are of it."""
    path = root / "downloads" / Path(unquote(urlsplit(archive.url).path)).name
    download(archive.url, path, archive.checksum)
    return unpack(path, root, archive.places)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m m3vit.data.fetch", description="Fetches a data set.")
    parser.add_argument("name", choices=sorted(SOURCES))
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="the data set's folder: data.root")
    parser.add_argument("--archive", metavar="FILE|URL", help="instead: an archive that you have, or know a place of")
    parser.add_argument("--checksum", metavar="KIND:HEX", help="of that archive")
    arguments = parser.parse_args(argv)
    source, root = SOURCES[arguments.name], arguments.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        if arguments.archive:
            places = {source.top: "", "": ""}
            if "://" in arguments.archive:
                if not arguments.checksum:
                    raise FetchError("what comes from elsewhere needs a --checksum")
                count = fetch(Archive(arguments.archive, arguments.checksum, places), root)
            else:
                path = Path(arguments.archive)
                if arguments.checksum:
                    verify(path, arguments.checksum)
                count = unpack(path, root, places)
            print(f"{count} files of {arguments.archive} are in {root}")
            return 0
        for archive in source.archives:
            print(f"{fetch(archive, root)} files of {archive.url} are in {root}")
    except (FetchError, OSError) as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 1
    print(f"{source.rest}\nThe folder should have:\n{source.layout}")
    return 0 if source.archives else 1


if __name__ == "__main__":
    sys.exit(main())
