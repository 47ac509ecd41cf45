"""`python -m heliostat_scheduler.simulator bench SUITE ... | scenarios F.yaml`: the result is one JSON object on the last line."""

from __future__ import annotations

import json
import sys

from heliostat_scheduler.simulator.arguments import parser
from heliostat_scheduler.simulator.tables import BadInput


def main(argv: list[str] | None = None) -> int:
    """0: done; 1: a scenario failed; 2: bad input."""
    arguments = parser().parse_args(argv)
    try:
        result = arguments.run(arguments)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 1 if result.get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
