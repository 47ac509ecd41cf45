"""`helio queue policy`: every number that changes a scheduling decision, and the digest that names them all.

Without a control plane it tells the shipped policy, which every benchmark runs; `--live` asks the running one.
"""

from __future__ import annotations

from dataclasses import asdict

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json
from heliostat.render.table import pairs


@click.command("policy")
@click.option("--digest", "only_digest", is_flag=True, help="Print the digest alone.")
@click.option("--live", is_flag=True, help="The digest that the running control plane decides by.")
@json_option
@pass_app
def policy(app: App, only_digest: bool, live: bool, as_json: bool) -> int:
    """The scheduling policy: its settings and their digest. With --live, exit 1 if the control plane runs another one."""
    from heliostat_scheduler.core.digest import policy_digest
    from heliostat_scheduler.core.model import Policy

    shipped = Policy()
    own = digest = policy_digest(shipped)
    if live:
        digest = str((app.client().cluster().get("control") or {}).get("policy_digest") or "unknown")
    if as_json:
        show_json(
            {"digest": digest, "policy": asdict(shipped)} if digest == own else {"digest": digest, "shipped": own}
        )
    elif only_digest:
        show(digest)
    else:
        show(f"policy {shipped.name}, digest {digest}")
        if digest == own:
            show(pairs([(name, _value(value)) for name, value in asdict(shipped).items() if name != "name"]))
    if digest != own:
        hint(
            f"The control plane does not run this installation's policy, whose digest is {own}: compare helio version."
        )
        return 1
    return 0


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if value != () else "-"
