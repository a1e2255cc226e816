"""An extension of IPython for tutorials: cells with %%sh show what they print in whole lines.

IPython's own hands it on in pieces of 100 characters, of which MyST-NB makes a line each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def sh(line: str, cell: str) -> None:
    """Run the commands of a cell; an error of one of them is an error of the cell."""
    own = Path(sys.executable).parent  # of the environment, which need not be activated
    done = subprocess.run(
        ["sh", "-e"],
        input=cell,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": os.pathsep.join([str(own), os.environ.get("PATH", os.defpath)])},
    )
    print(done.stdout.strip("\n"))
    done.check_returncode()


def load_ipython_extension(shell: Any) -> None:
    """Replace the magic %%sh."""
    shell.register_magic_function(sh, "cell")
