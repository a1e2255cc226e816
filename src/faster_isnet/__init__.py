"""Faster ISNet: classifiers trained so that their decisions do not rest on the background.

What it offers is named in ``__init__.pyi``, and imported when it is first used.
"""

import sys
from importlib.metadata import version

import lazy_loader

from faster_isnet.common.moved_modules import MOVED, MovedModules

__version__ = version("faster-isnet")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

sys.meta_path.append(MovedModules(MOVED))
