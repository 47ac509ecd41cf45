"""What a submission says, from the forms people write to the one the API takes.

`gpus=2`, `gpus="2..8"`, `gpus=(2, 8)` and `gpus=range(2, 9)` all mean a range; `max_runtime="2h"` is 7,200 seconds;
`memory="16GiB"` is 17,179,869,184 bytes. A target is a list of words, a line for the shell, or the path of a script.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from heliostat.wire.errors import BadRequest

INTERPRETERS = {".py": "python", ".sh": "bash"}
SCRIPT_READERS = re.compile(r"^(python[\d.]*|bash|sh|zsh|torchrun|accelerate|Rscript|julia|node)$")
UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
UNIT_BYTES = {
    "": 1,
    "K": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "T": 1000**4,
    "KI": 1024,
    "MI": 1024**2,
    "GI": 1024**3,
    "TI": 1024**4,
}

Target = str | Path | Sequence[str]
Gpus = int | float | str | tuple[int, int] | range


@dataclass(frozen=True, slots=True)
class Command:
    """What runs: argv or a shell line, and the folder that has to travel with it (None: nothing does)."""

    argv: tuple[str, ...] = ()
    line: str = ""
    folder: Path | None = None

    def fields(self) -> dict[str, object]:
        return {"entrypoint": self.line} if self.line else {"command": list(self.argv)}


def command_of(target: Target, working_dir: str | Path | None) -> Command:
    """The command behind a target. A script brings its own folder along unless `working_dir` names another."""
    folder = None if working_dir is None else Path(working_dir).expanduser().resolve()
    if isinstance(target, Path) or (isinstance(target, str) and _is_script(target, folder)):
        return _script(Path(target).expanduser(), folder)
    if isinstance(target, str):
        if not target.strip():
            raise BadRequest("The command is empty.", remedy="Give a command, for example: python train.py")
        return Command(line=target, folder=folder)
    words = tuple(str(word) for word in target)
    if not words or not words[0]:
        raise BadRequest("The command is empty.", remedy="Give a command, for example: python train.py")
    if folder is None:
        _refuse_left_behind(words)
    return Command(argv=words, folder=folder)


def gpu_fields(gpus: Gpus | None) -> dict[str, object]:
    """`gpus`, or `min_gpus` and `max_gpus`."""
    if gpus is None:
        return {}
    if isinstance(gpus, int | float):
        return {"gpus": _not_negative(gpus)}
    if isinstance(gpus, range):
        least, most = (gpus.start, gpus.stop - 1) if gpus.step == 1 and len(gpus) else (1, 0)
    elif isinstance(gpus, tuple):
        least, most = gpus
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:\.\.\s*(\d+)\s*)?", gpus)
        if match is None:
            raise _bad_gpus(gpus)
        if match[2] is None:
            amount = float(match[1])
            return {"gpus": int(amount) if amount.is_integer() else amount}
        if "." in match[1]:
            raise _bad_gpus(gpus)
        least, most = int(match[1]), int(match[2])
    if least < 0 or most < least:
        raise _bad_gpus(gpus)
    return {"gpus": least} if least == most else {"min_gpus": least, "max_gpus": most}


def seconds(value: float | str | timedelta | None, what: str = "max_runtime") -> float | None:
    """Seconds from `90`, `"90s"`, `"2h"`, `"1h30m"` or a timedelta."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, timedelta):
        return value.total_seconds()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", value.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != value.strip().lower():
        raise BadRequest(f"{what}: '{value}' is no duration.", remedy="Write 90s, 30m, 2h, 1h30m or 7d.")
    return float(sum(float(number) * UNIT_S[unit or "s"] for number, unit in parts))


def span_s(value: float | str | timedelta, what: str) -> float:
    """Seconds of a span of time that has a length."""
    found = seconds(value, what)
    if not found or found <= 0:
        raise BadRequest(f"{what}: {value!s} is no span of time.", remedy="Write 90s, 30m, 2h, 1h30m or 7d.")
    return found


def memory_bytes(value: int | str | None) -> int | None:
    """Bytes from `1024`, `"16GiB"`, `"500M"`."""
    if value is None or isinstance(value, int):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", value.upper())
    if match is None or match[2] == "I":
        raise BadRequest(f"memory: '{value}' is no size.", remedy="Write 512MiB, 16GiB or a number of bytes.")
    return int(float(match[1]) * UNIT_BYTES[match[2]])


def _is_script(target: str, folder: Path | None) -> bool:
    """A single word that names an existing script; anything with a space in it is a line for the shell."""
    if Path(target).suffix not in INTERPRETERS or target != target.strip():
        return False
    return Path(target).expanduser().is_file() or (folder is not None and (folder / target).is_file())


def _script(path: Path, folder: Path | None) -> Command:
    interpreter = INTERPRETERS.get(path.suffix)
    if interpreter is None:
        raise BadRequest(
            f"{path} is neither a .py nor a .sh file.",
            remedy='Name the program that runs it: submit(["julia", "train.jl"])',
        )
    inside = folder / path if folder is not None and not path.is_absolute() else path.absolute()
    if not inside.is_file():
        inside = path.absolute()
    if not inside.is_file():
        raise BadRequest(
            f"There is no file {path}.", remedy="Check the path; a shell line goes in as one string with spaces."
        )
    shipped = folder or inside.parent
    if not inside.resolve().is_relative_to(shipped.resolve()):
        raise BadRequest(
            f"{path} is not inside working_dir {shipped}.", remedy="Let working_dir be a folder above the script."
        )
    return Command(argv=(interpreter, str(inside.resolve().relative_to(shipped.resolve()))), folder=shipped)


def _refuse_left_behind(words: tuple[str, ...]) -> None:
    """`python train.py` without a working_dir would fail on the cluster after a wait: say so now."""
    reads_script = SCRIPT_READERS.match(Path(words[0]).name) is not None
    candidates = [words[0]] if "/" in words[0] else []
    if reads_script:
        candidates += [word for word in words[1:] if not word.startswith("-")][:1]
    for word in candidates:
        if not Path(word).is_absolute() and Path(word).is_file():
            raise BadRequest(
                f"{word} is a file in this folder, and a job sees only the files that travel with it.",
                code="file_left_behind",
                remedy="Send this folder along with --working-dir . (SDK: working_dir='.'), or write the file's full path.",
            )


def _not_negative(gpus: float) -> float:
    if gpus < 0:
        raise _bad_gpus(gpus)
    return gpus


def _bad_gpus(gpus: object) -> BadRequest:
    return BadRequest(f"gpus: {gpus!r} is no number of GPUs.", remedy="Write 2, 0.5, or a range such as 2..8.")
