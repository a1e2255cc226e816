"""An extension of IPython for tutorials: cells with %%sh show what they print in whole lines.

IPython's own hands it on in pieces of 100 characters, of which MyST-NB makes a line each.
"""

from __future__ import annotations

import subprocess
from typing import Any


def sh(line: str, cell: str) -> None:
    """Run the commands of a cell; an error of one of them is an error of the cell."""
    done = subprocess.run(
        ["sh", "-e"], input=cell, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(done.stdout.strip("\n"))
    done.check_returncode()


def load_ipython_extension(shell: Any) -> None:
    """Replace the magic %%sh."""
    shell.register_magic_function(sh, "cell")
