"""Become a command that sees what a process in a container sees: the model at /opt/ml/model, read-only, as all is but /tmp and /dev.

    python -I confine.py MODEL_FOLDER COMMAND...

In a mount namespace of its own, so that nothing outside changes; the process stays the same one. Needs root on Linux.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL_FOLDER = "/opt/ml/model"
_WRITABLE = ("/tmp", "/dev", "/proc", "/sys")  # noqa: S108 - what a container with a read-only root file system can write as well
_CLONE_NEWNS = 0x00020000


def main(model: str, command: list[str]) -> None:
    """Move, mount, become. Does not return."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("--make-rprivate", "/")
    _provide(model)
    _mount("--bind", "/tmp", "/tmp")  # noqa: S108
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount_point = line.split()[4].encode().decode("unicode_escape")
        if not mount_point.startswith(_WRITABLE):
            _mount("-o", "remount,bind,ro", mount_point)
    os.execvp(command[0], command)  # noqa: S606 - to become it is the point


def _provide(model: str) -> None:
    """Bind the model to where SageMaker puts it. /opt may lack the folder: then /opt is put together anew, with all it had."""
    if os.path.isdir(MODEL_FOLDER):
        _mount("--bind", model, MODEL_FOLDER)
        return
    top, scratch = Path("/opt"), Path(tempfile.mkdtemp(prefix="conformance-"))
    # The model may itself be under /opt, which is about to be covered: it is held open here.
    held = os.open(model, os.O_PATH)
    _mount("--rbind", str(top), str(scratch))
    _mount("-t", "tmpfs", "tmpfs", str(top))
    for child in scratch.iterdir():
        if child.is_symlink():
            (top / child.name).symlink_to(child.readlink())
            continue
        (top / child.name).mkdir() if child.is_dir() else (top / child.name).touch()
        _mount("--rbind", str(child), str(top / child.name))
    (top / "ml" / "model").mkdir(parents=True, exist_ok=True)
    _mount("--bind", f"/proc/{os.getpid()}/fd/{held}", MODEL_FOLDER)
    os.close(held)
    subprocess.run(["umount", "--lazy", "--recursive", str(scratch)], check=True)
    scratch.rmdir()


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
