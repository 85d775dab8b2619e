"""The documentation site: ``make docs`` writes it into build/site, and needs no network.

Pages are in notebooks/guide, tutorials are the notebooks with their committed outputs. Before
Sphinx reads them, a page for each estimator, the gallery and the public names are written into
notebooks/generated, from the registries and the published results of the package.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import gradbench  # noqa: E402

project = "gradbench"
author = "The gradbench developers"
copyright = "The gradbench developers, Apache-2.0"
release = version = gradbench.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",
    "mathml",
    "generated",
]
exclude_patterns = ["examples/**", "site/**", "**/.ipynb_checkpoints"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
highlight_language = "text"

nb_execution_mode = "off"  # the outputs are committed, and a test holds that they are current
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 4

html_math_renderer = "mathml"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"gradbench {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {
        "color-brand-primary": "#1b5e9b",
        "color-brand-content": "#1b5e9b",
        "font-stack": "system-ui, sans-serif",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7cb7ee",
        "color-brand-content": "#7cb7ee",
    },
}
pygments_style = "tango"
pygments_dark_style = "monokai"
