"""Folders to write to: what is in the way is told before the work begins, with the option's name."""

import errno
import os
import tempfile
from pathlib import Path

from univnet.common.files import NO_ROOM


def cannot_write_to(folder: str | os.PathLike[str], option: str) -> str | None:
    """Return why nothing can be written to ``folder``, or ``None`` where it can; it is not made.

    Args:
        folder: which may be there or not.
        option: that named it, for the sentence.

    Raises:
        OSError: the disk is full.
    """
    folder = Path(folder).expanduser()
    place = folder
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            what = "is" if place == folder else f"cannot be made, for {place} is"
            return f"{option} {folder} {what} a file: name a folder"
        os.rmdir(tempfile.mkdtemp(prefix=".univnet-", dir=place))  # its permissions do not tell all, such as of /proc
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        why = "no folder can be made there" if error.errno == errno.ENOENT else error.strerror
        return f"{option} {folder} cannot be written to ({why}): name another folder, or change its permissions"
    return None
