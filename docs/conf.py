"""How Sphinx builds the site: ``make docs``."""

import os
from importlib.metadata import version as installed_version
from pathlib import Path

project = "faster-isnet"
author = "The faster-isnet developers"
copyright = author  # noqa: A001
version = release = installed_version("faster-isnet")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "results/interim"]
html_theme = "furo"
html_title = f"faster-isnet {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Tutorials run when the site is built, and an error in one ends it.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings of libraries, with paths of the machine that builds
nb_render_markdown_format = "myst"  # tables, too
os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # for shell_cells

# Docstrings are numpy's; only what a module offers is in the reference.
napoleon_google_docstring = False
napoleon_use_ivar = True  # an attribute that is a property is described once
napoleon_use_rtype = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autosummary_generate = True
