"""`report.html`: a page without scripts, of text, tables and pictures."""

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from msclr.errors import InputError
from msclr.paths import as_path

Table = Sequence[Sequence[Any]]  # rows of cells, the header first


class Picture(NamedTuple):
    """A picture of a page, and what is to be seen on it for whoever cannot see it."""

    path: Path
    alt: str


Content = str | Table | Path | Picture


def write_page(folder: str | Path, title: str, sections: Sequence[tuple[str, Content]]) -> Path:
    """Writes `folder`/report.html, a page without scripts, and returns its path.

    sections: (heading, content), where content is text (a `str`; an empty line starts a new
    paragraph), a picture (a `Picture`, or the `pathlib.Path` of one, inside `folder`), or a table
    (rows of cells, the header first). Sections of the same heading in a row are joined under one.
    Text is escaped; pictures are linked relative to the page, so that the folder can be moved as a
    whole.

    Raises InputError for a picture that is absent or outside `folder`, and a table with rows of
    unlike length.
    """
    folder = as_path(folder)
    body, last = [], None
    for heading, content in sections:
        if heading != last:
            body.append(f"<h2>{html.escape(heading)}</h2>")
            last = heading
        body.append(_content(folder, heading, content))
    page = _PAGE.format(title=html.escape(title), body="\n".join(body))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _content(folder: Path, heading: str, content: Content) -> str:
    if isinstance(content, str):
        paragraphs = [part for part in content.split("\n\n") if part.strip()]
        return "\n".join(f"<p>{html.escape(part.strip())}</p>" for part in paragraphs)
    if isinstance(content, Path):
        content = Picture(content, f"{heading}: {content.stem}")
    if isinstance(content, Picture):
        return _picture(folder, heading, content)
    return _table(heading, content)


def _picture(folder: Path, heading: str, picture: Picture) -> str:
    path = picture.path
    if not path.is_file():
        raise InputError(f"{path}: no such picture for the section {heading!r}; draw it first")
    link = os.path.relpath(path.resolve(), folder.resolve())
    if link.startswith(os.pardir):
        raise InputError(f"{path} is outside {folder}; pictures of a page must lie in its folder")
    source = quote(Path(link).as_posix())
    return f'<img src="{source}" alt="{html.escape(picture.alt)}">'


def _table(heading: str, rows: Table) -> str:
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise InputError(
            f"the table of the section {heading!r} has rows of {[len(row) for row in rows]} cells; "
            "wanted a header and rows of its length"
        )
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in rows[0])
    lines = ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows[1:]]
    body = "\n".join(lines)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cell(value: Any) -> str:
    """Numbers are aligned right, floats with four digits; None is a dash."""
    if value is None:
        return '<td class="number">–</td>'
    if isinstance(value, float):
        return f'<td class="number">{value:.4g}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value}</td>'
    return f"<td>{html.escape(str(value))}</td>"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ max-width: 60rem; margin: 3rem auto; padding: 0 1.25rem; color: #1a202c;
       font: 16px/1.6 system-ui, sans-serif; }}
h1 {{ font-size: 1.9rem; margin-bottom: 2rem; }}
h2 {{ font-size: 1.25rem; margin: 2.5rem 0 0.75rem; padding-top: 1rem;
     border-top: 1px solid #e2e8f0; }}
p {{ max-width: 44rem; white-space: pre-line; }}
img {{ display: block; max-width: 100%; height: auto; margin: 1rem 0; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.35rem 1rem; border-bottom: 1px solid #e2e8f0; text-align: left; }}
td:last-child {{ overflow-wrap: anywhere; }}
th {{ color: #4a5568; font-weight: 600; border-bottom: 2px solid #cbd5e0; }}
.number {{ text-align: right; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
