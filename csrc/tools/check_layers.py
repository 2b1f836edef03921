"""Hold the layer rule: a folder of csrc/ includes only folders below it; only bind/ sees Python.

    python check_layers.py CSRC      exit 1 and a line per breach
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LEVEL = {
    "core": 0,
    "kernels": 1,
    "ops": 2,
    "layers": 3,
    "losses": 3,
    "optim": 3,
    "augment": 3,
    "graph": 4,
    "bind": 5,
}
PRIVATE = re.compile(r'^\s*#\s*include\s+[<"](Python\.h|numpy/|structmember\.h)', re.M)


def breaches(csrc: Path) -> list[str]:
    found = []
    for path in sorted(csrc.rglob("*.[chi]*")):
        folder = path.relative_to(csrc).parts[0]
        if folder not in LEVEL or path.suffix not in {".c", ".h", ".inc"}:
            continue
        text = path.read_text(encoding="utf-8")
        if folder != "bind" and PRIVATE.search(text):
            found.append(f"{path}: only bind/ may include Python or NumPy headers")
        for line, include in enumerate(text.splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+"(\w+)/', include)
            if match is None or match[1] == folder or match[1] == "gen":
                continue
            if match[1] not in LEVEL or LEVEL[match[1]] >= LEVEL[folder]:
                found.append(f"{path}:{line}: {folder}/ may not include {match[1]}/")
    return found


if __name__ == "__main__":
    lines = breaches(Path(sys.argv[1]))
    print("\n".join(lines) or "layers: in order")
    sys.exit(1 if lines else 0)
