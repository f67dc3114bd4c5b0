"""Pages of the site that lie elsewhere in the repository, and links between them."""

import re
from pathlib import Path

import nbformat
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "experiments/LOG.md": "log.md",
    "benchmarks/RESULTS.md": "benchmarks.md",
}
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files, config):
    """Add the pages, and one of the notebooks."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_relinked(source)))
    files.append(File.generated(config, "notebooks.md", content=_notebooks()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links at pages of the site; files of the repository are named, not linked."""
    source = f"docs/{page.file.src_uri}"
    return markdown if page.file.generated_by else _with_links(markdown, source)


def _relinked(source):
    return _with_links((ROOT / source).read_text(), source)


def _with_links(text, source):
    def replace(match):
        target, anchor = match[1], match[2] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = ((ROOT / source).parent / target).resolve()
        assert path.exists(), f"{source}: {target} leads nowhere"
        place = path.relative_to(ROOT).as_posix()
        if place in PAGES:
            return f"]({PAGES[place]}{anchor})"
        if place.startswith("docs/"):
            return f"]({place.removeprefix('docs/')}{anchor})"
        return f"](reference.md '{place} in the repository')"

    return LINK.sub(replace, text)


def _notebooks():
    """Return the notebooks as one page: their text and their code; CI runs them."""
    parts = ["# Notebooks\n\nIn `docs/notebooks/`; both are run by the tests.\n"]
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        parts.append(f"`{path.name}`\n")
        for cell in nbformat.read(path, as_version=4).cells:
            is_text = cell.cell_type == "markdown"
            parts.append(cell.source.replace("# ", "## ", 1) if is_text else _code(cell.source))
    return "\n\n".join(parts)


def _code(source):
    return f"```python\n{source}\n```"
