"""Programs that a test starts and waits for."""

import os
import subprocess
import sys
from pathlib import Path


def python(*words, cwd, timeout=300, **variables):
    """Python on these words, on one core, with this checkout and its helpers to import; what it came to."""
    places = (Path(__file__).parents[2], Path(__file__).parent)
    known = {"PYTHONPATH": os.pathsep.join(map(str, places)), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=os.environ | known | variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
