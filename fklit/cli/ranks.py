"""What several processes of one run say at once is printed once."""

import hashlib
import os
import tempfile
import time
from pathlib import Path

_SAME = 120.0  # seconds within which processes say the same thing about the same run


def speaks_first(message: str) -> bool:
    """Whether this process is the first of its run on this machine to say something.

    Args:
        message: What it would print.

    Returns:
        True outside of a run with several processes.
    """
    port = os.environ.get("MASTER_PORT")
    if port is None or "LOCAL_RANK" not in os.environ:
        return True
    run = f"{os.environ.get('MASTER_ADDR')}:{port}:{message}"
    said = Path(tempfile.gettempdir(), f"fklit-{os.getuid()}-{hashlib.sha256(run.encode()).hexdigest()[:24]}")
    try:
        os.close(os.open(said, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        try:
            recent = time.time() - said.stat().st_mtime < _SAME
            said.touch()
        except OSError:
            return True
        return not recent
    except OSError:  # no room for a note: better twice than never
        return True
    return True
