"""Writing a file so that it is whole at every moment, the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def write_atomically(file: Path, content: str | bytes) -> None:
    """To a temporary file beside it, flushed to the disk, then renamed over it. Text is UTF-8.

    Whatever stops this in the middle leaves the old file; what can be caught leaves no temporary
    file either. A link stays a link: what it points to is replaced. A device or a pipe has no
    older content to keep, and is written as it is.

    Raises:
      OSError: the folder is missing, the disk is full, ...
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if file.exists() and not file.is_file():  # asked before links are followed: /dev/stdout
        file.write_bytes(data)
        return
    target = Path(os.path.realpath(file))
    if not target.parent.is_dir():
        raise FileNotFoundError(2, "there is no such folder", str(file.parent))
    _replace(target, data)


def _replace(file: Path, data: bytes) -> None:
    # Not tempfile: its files are for their owner's eyes only, and to give them the usual mode
    # takes the umask, which can only be read by setting it, for all threads.
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink()
        raise
