"""Writing a file so that it is whole at every moment, the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path


def write_atomically(file: Path, content: str | bytes) -> None:
    """To a temporary file beside it, flushed to the disk, then renamed over it. Text is UTF-8.

    Whatever stops this in the middle leaves the old file; what can be caught leaves no temporary
    file either. What there was keeps its permission bits, and its owner and group where this
    process may give files away; a new file gets what the umask leaves. A link stays a link: what
    it points to is replaced. A device or a pipe has no older content to keep, and is written as
    it is.

    Raises:
      OSError: the folder is missing, the disk is full, ...
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if file.exists() and not file.is_file():  # asked before links are followed: /dev/stdout
        file.write_bytes(data)
        return
    target = Path(os.path.realpath(file))
    if target.is_symlink():  # it leads to itself
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file))
    if not target.parent.is_dir():
        raise FileNotFoundError(2, "there is no such folder", str(file.parent))
    _replace(target, data)


def _replace(file: Path, data: bytes) -> None:
    # Not tempfile: its files are for their owner's eyes only, and to give them the usual mode
    # takes the umask, which can only be read by setting it, for all threads.
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}.tmp")
    old = os.stat(file) if file.exists() else None
    mode = 0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o777
    try:
        with open(temporary, "xb", opener=lambda path, flags: os.open(path, flags, mode)) as stream:
            if old is not None and os.name == "posix":  # before there is anything to read in it
                _take_over(stream.fileno(), old, mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink()
        raise


def _take_over(descriptor: int, old: os.stat_result, mode: int) -> None:
    """Group, owner and mode, as far as this process may, and the file system has them."""
    for change in (
        lambda: os.fchown(descriptor, -1, old.st_gid),
        lambda: os.fchown(descriptor, old.st_uid, -1),
        lambda: os.fchmod(descriptor, mode),
    ):
        with contextlib.suppress(OSError):
            change()
