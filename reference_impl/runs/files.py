"""Writing that survives: a file is either the old one or the whole new one, and a full disk is one sentence."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reference_impl.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating-system error while writing `path` into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. Make room or choose another place with --runs-dir; "
            "what was written before is readable."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step: written beside it, then renamed."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append one line, whole or not at all: what a full disk cut off is taken back."""
    data = (line + "\n").encode()
    with writing(path):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(file).st_size
            try:
                written = 0
                while written < len(data):
                    written += os.write(file, data[written:])
            except OSError:
                os.ftruncate(file, size)
                raise
        finally:
            os.close(file)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; afterwards it stands at `folder`, and what stood there is gone.

    A crash at any moment leaves the old or the new folder, whole; `settled_folder` finds it.
    """
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    with writing(folder):
        settled_folder(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        try:
            yield fresh
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def settled_folder(folder: Path) -> Path:
    """`folder`, put back in its place first if a crash came between the two renames of `replacing_folder`."""
    old = folder.with_name(f".{folder.name}.old")
    if old.exists():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)
    return folder
