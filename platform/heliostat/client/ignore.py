"""Which files stay at home when a folder is sent along: the rules of `.gitignore`, read from the folder itself.

Each folder's `.gitignore` and `.heliostatignore` apply to it and below it; a later rule wins over an earlier one and `!` takes
a file back in, unless a folder above it is out (as git does it). Caches, environments and `.git` are always out.
Not supported: `core.excludesFile`, `.git/info/exclude`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

IGNORE_FILES = (".gitignore", ".heliostatignore")
ALWAYS_OUT = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".ruff_cache",
     ".pytest_cache", ".DS_Store"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an ignore file. base: the folder of that file, "" or ending with a slash."""

    base: str
    pattern: re.Pattern[str]
    takes_in: bool
    folders_only: bool

    def matches(self, path: str, is_folder: bool) -> bool:
        if self.folders_only and not is_folder:
            return False
        return path.startswith(self.base) and self.pattern.fullmatch(path[len(self.base) :]) is not None


def read_rules(folder: Path, base: str) -> list[Rule]:
    """The rules that a folder's own files add."""
    rules = []
    for name in IGNORE_FILES:
        file = folder / name
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            rules += [rule for line in lines if (rule := parse_rule(line, base)) is not None]
    return rules


def parse_rule(line: str, base: str) -> Rule | None:
    text = line if line.endswith("\\ ") else line.rstrip()
    if not text or text.startswith("#"):
        return None
    takes_in = text.startswith("!")
    text = text.removeprefix("!").removeprefix("\\")
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    if not text:
        return None
    anchored = "/" in text
    pattern = _translate(text.removeprefix("/"))
    return Rule(base, re.compile(pattern if anchored else f"(?:.*/)?{pattern}", re.DOTALL), takes_in, folders_only)


def is_out(path: str, is_folder: bool, rules: list[Rule]) -> bool:
    """Whether the rules keep a path (with slashes, relative to the top folder) at home. The last rule that matches decides."""
    if path.rsplit("/", 1)[-1] in ALWAYS_OUT:
        return True
    for rule in reversed(rules):
        if rule.matches(path, is_folder):
            return not rule.takes_in
    return False


def _translate(glob: str) -> str:
    """A git glob as a regular expression: `*` and `?` stop at slashes, `**` does not."""
    out, index = "", 0
    while index < len(glob):
        if glob.startswith("**/", index) and (index == 0 or glob[index - 1] == "/"):
            out, index = out + "(?:.*/)?", index + 3
        elif glob.startswith("**", index):
            out, index = out + ".*", index + 2
        elif glob[index] == "*":
            out, index = out + "[^/]*", index + 1
        elif glob[index] == "?":
            out, index = out + "[^/]", index + 1
        elif glob[index] == "[" and (end := glob.find("]", index + 2)) > 0:
            inside = glob[index + 1 : end].replace("\\", "\\\\")
            out, index = out + "[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]", end + 1
        elif glob[index] == "\\" and index + 1 < len(glob):
            out, index = out + re.escape(glob[index + 1]), index + 2
        else:
            out, index = out + re.escape(glob[index]), index + 1
    return out
