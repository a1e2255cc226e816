"""Choose which messages a program shows on its standard error."""

from __future__ import annotations

import logging
import warnings


def show_own_messages() -> None:
    """Show the messages of this package, and of Lightning its errors and warnings by log alone.

    Importing Lightning sets its levels: call this after it, too.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("faster_isnet").setLevel(logging.INFO)
    for library in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning", category=Warning)
