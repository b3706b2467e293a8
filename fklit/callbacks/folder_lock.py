"""A folder belongs to one run at a time: a second one that writes there is refused by name."""

from pathlib import Path

from filelock import SoftFileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info

from fklit.atomic import make_folder

NAME = "run.lock"
_PATIENCE = 1.0  # seconds: a lock whose process is dead is taken over within


class FolderLock:
    """`run.lock` in a folder, with process and host of the run that writes there.

    The lock of a process of this machine that is gone (killed, crashed) is taken over. That of another machine cannot
    be judged from here: the message says which file to delete.

    Args:
        folder: Folder of the run; made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._lock = SoftFileLock(self.path)

    def acquire(self) -> str | None:
        """Takes the lock.

        Returns:
            None, or the message of a refusal.

        Raises:
            OSError: The folder cannot be written.
        """
        make_folder(self.path.parent)
        left_by = self._holder()
        try:
            self._lock.acquire(timeout=_PATIENCE, poll_interval=0.05)
        except Timeout:
            process, host = self._holder() or ("unknown", "unknown")
            return (
                f"output_dir: expected a folder that no other run writes to, got {self.path.parent}, in use by process "
                f"{process} on {host}; choose another --output_dir, or delete {self.path} if that run is dead."
            )
        if left_by is not None:
            rank_zero_info(f"Took over {self.path} of process {left_by[0]} on {left_by[1]}, which is gone.")
        return None

    def release(self) -> None:
        """Gives the lock back; does nothing if it is not held."""
        self._lock.release()

    def _holder(self) -> tuple[str, str] | None:
        """Process and host that the file names."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return None
        return (lines[0], lines[1].partition("?")[0]) if len(lines) >= 2 else None
