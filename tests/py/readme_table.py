"""The README's table of checks, made from the table that the doctor runs by.

python tests/py/readme_table.py       # writes it into README.md, between its marks
"""

from __future__ import annotations

from pathlib import Path

from gapless.doctor import table

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- checks -->", "<!-- /checks -->"


def lines() -> list[str]:
    """A row per check of the package; those of users and tests are not the README's."""
    own = [r for r in table.rows() if r.run.__module__.startswith("gapless.")]
    return [
        "| check | cause | its points are | needs |",
        "|---|---|---|---|",
        *(f"| {r.id} `{r.slug}` | {r.title} | {r.measure} | {', '.join(r.needs)} |" for r in own),
    ]


def in_readme() -> list[str]:
    """What stands there now."""
    return README.read_text("utf-8").partition(BEGIN)[2].partition(END)[0].strip().splitlines()


def write() -> None:
    """Put the table between its marks."""
    head, _, rest = README.read_text("utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    README.write_text(f"{head}{BEGIN}\n{chr(10).join(lines())}\n{END}{tail}", "utf-8")


if __name__ == "__main__":
    write()
