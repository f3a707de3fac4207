"""Put the result files that pages link to on the site: a hook, see mkdocs.yml."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
_IN_SOURCE, _ON_SITE = "../benchmarks/results/", "measured/"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the result files to those that are copied."""
    for path in sorted(_RESULTS.iterdir()):
        files.append(File.generated(config, _ON_SITE + path.name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links into the source tree point at these copies."""
    nested = markdown.replace(f"(../{_IN_SOURCE}", f"(../{_ON_SITE}")
    return nested.replace(f"({_IN_SOURCE}", f"({_ON_SITE}")
