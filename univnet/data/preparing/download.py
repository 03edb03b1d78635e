"""Corpora from the network, by torchaudio's addresses and checksums: whole, or not there."""

import shutil
import socket
import tarfile
import zipfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

from torchaudio import datasets

from univnet.audio import shown

SETS = ("dev-clean", "dev-other", "test-clean", "test-other", "train-clean-100", "train-clean-360", "train-other-500")
DOWNLOADS = ("ljspeech", "vctk", *SETS)
_PATIENCE = 60.0  # seconds without an answer


def download(name: str, folder: Path, url: str | None = None) -> Path:
    """Download and unpack a corpus, unless it is there; return its folder.

    The archive is checked by torchaudio's checksum and removed once it is unpacked. A download that is broken off
    begins again; what is unpacked moves to its place when it is whole.

    Args:
        name: "ljspeech", "vctk", or a set of LibriTTS, such as "dev-clean".
        folder: what to put it in; made if it is missing.
        url: of the archive, if not torchaudio's.

    Raises:
        ConnectionError: it cannot be reached.
        ValueError: what came is not the corpus.
    """
    made = {"ljspeech": "LJSpeech-1.1", "vctk": "VCTK-Corpus-0.92"}.get(name, f"LibriTTS/{name}")
    if (folder / made).is_dir():
        return folder / made
    work = folder / ".download" / name
    shutil.rmtree(work / made.split("/")[0], ignore_errors=True)  # cut short while it was unpacked
    work.mkdir(parents=True, exist_ok=True)
    for cut_short in work.glob("*.partial"):
        cut_short.unlink()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        _unpack(name, work, {} if url is None else {"url": url})
    except (URLError, HTTPException, ConnectionError, TimeoutError, socket.gaierror) as error:
        raise ConnectionError(
            f"{name} cannot be downloaded ({getattr(error, 'reason', error)}): check the network, or fetch it, unpack "
            f"it by hand into {shown(folder)}, and leave out --download"
        ) from error
    except (RuntimeError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        shutil.rmtree(work)
        raise ValueError(f"what came for {name} is not the corpus ({error}): try again") from error
    finally:
        socket.setdefaulttimeout(before)
    (folder / made).parent.mkdir(parents=True, exist_ok=True)
    (work / made).replace(folder / made)
    shutil.rmtree(work)
    if not any(work.parent.iterdir()):
        work.parent.rmdir()
    return folder / made


def _unpack(name: str, work: Path, options: dict[str, Any]) -> None:
    kinds: dict[str, Callable[..., Any]] = {"ljspeech": datasets.LJSPEECH, "vctk": datasets.VCTK_092}
    if name in SETS:
        options = {"url": name, **options}
    kinds.get(name, datasets.LIBRITTS)(work, download=True, **options)
