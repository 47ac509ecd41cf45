"""What the registry can answer instead of a version."""

from __future__ import annotations


class RegistryError(Exception):
    """A request that cannot be done as it stands; nothing was changed. `code` is stable, `remedy` says what to do, `status` is HTTP's."""

    def __init__(self, code: str, text: str, remedy: str, status: int = 400) -> None:
        super().__init__(text)
        self.code = code
        self.remedy = remedy
        self.status = status


def unknown_model(name: str) -> RegistryError:
    text = f"There is no model {name}."
    return RegistryError("unknown_model", text, "helio model ls shows the models of your project.", 404)


def unknown_version(name: str, which: str) -> RegistryError:
    text = f"Model {name} has no version {which}."
    return RegistryError("unknown_version", text, f"helio model show {name} lists its versions and aliases.", 404)
