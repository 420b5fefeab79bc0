"""Running a program that refuses root, PostgreSQL, when we are root.

First choice is a user namespace in which root is an ordinary user: files keep their owner and no directory needs to
be opened to anybody. Where those are forbidden (many containers), the program runs as `postgres` or `nobody`, which
must be able to reach its files.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

USERS: Final = ("postgres", "nobody")
ELSEWHERE: Final = Path("/var/tmp")


class NotPossible(Exception):
    """This machine offers no way; the text says what was missing."""


@dataclass(frozen=True, slots=True)
class Runner:
    """How to start programs without root's rights: `prefix` goes before the command. Where `owner` is not None, it is
    another user (uid, gid), who needs files of his own."""

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def can_read(self, path: Path) -> bool:
        """Whether the program may open this file or enter this directory."""
        flag = "-x" if path.is_dir() else "-r"
        return subprocess.run([*self.prefix, "test", flag, str(path)], check=False).returncode == 0

    def own(self, path: Path) -> None:
        """Make a file or directory the program's."""
        if self.owner is not None:
            os.chown(path, *self.owner)

    def home(self, directory: Path) -> Path:
        """`directory`, or where the program cannot get there, a folder that stands for it (root's, mode 0711)."""
        if self.owner is None:
            return directory
        directory.chmod(0o711)
        if self.can_read(directory):
            return directory
        name = hashlib.blake2b(os.fsencode(directory), digest_size=8).hexdigest()
        home = ELSEWHERE / f"stentor-{name}"
        home.mkdir(mode=0o711, exist_ok=True)
        found = home.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise NotPossible(f"{home} belongs to somebody else")
        return home


def find_runner() -> Runner:
    """The way that works here. Raises NotPossible."""
    if os.geteuid() != 0:
        return Runner()
    user = _ordinary_user()
    namespace = ("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--")
    if may_unshare(namespace):
        return Runner(namespace)
    if shutil.which("setpriv") is None:
        raise NotPossible("user namespaces are forbidden and setpriv (util-linux) is missing")
    change = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--")
    return Runner(change, (user.pw_uid, user.pw_gid))


def may_unshare(namespace: tuple[str, ...]) -> bool:
    """Whether a user namespace can be made here."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*namespace, "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0


def _ordinary_user() -> pwd.struct_passwd:
    """A user that the machine knows: PostgreSQL looks up the name of the one it runs as."""
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NotPossible(f"there is no user {' or '.join(USERS)}")
