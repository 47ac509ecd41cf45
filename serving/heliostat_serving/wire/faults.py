"""What can be wrong with a call, as a closed table: code -> HTTP status. `docs/serving.md` has a line for each.

A Fault is the caller's (4xx) or ours (5xx); the class of the status answers "whose move is it?". How it looks on the wire is the
protocol's business (`wire.oip`, `wire.mlflow`, `wire.native`).
"""

from __future__ import annotations

CODES: dict[str, int] = {
    "bad_json": 400,
    "bad_header": 400,
    "bad_encoding": 400,
    "bad_tensor": 400,
    "bad_binary": 400,
    "wrong_shape": 400,
    "wrong_dtype": 400,
    "not_finite": 400,
    "missing_input": 400,
    "unknown_input": 400,
    "unknown_output": 400,
    "unsupported": 400,
    "too_many_rows": 400,
    "unauthenticated": 401,
    "key_expired": 401,
    "pin_forbidden": 403,
    "not_found": 404,
    "unknown_version": 404,
    "method_not_allowed": 405,
    "body_timeout": 408,
    "body_too_large": 413,
    "unsupported_media": 415,
    "rate_limited": 429,
    "too_many_in_flight": 429,
    "no_grant": 429,
    "client_gone": 499,
    "internal_error": 500,
    "model_failed": 500,
    "replica_lost": 503,
    "no_version_ready": 503,
    "predict_timeout": 504,
}


class Fault(Exception):
    """An answer other than 200: a stable code for programs, a sentence and a remedy for people."""

    def __init__(
        self, code: str, text: str, remedy: str = "", retry_after_s: float | None = None, *, allow: str = ""
    ) -> None:
        super().__init__(text)
        self.code = code
        self.status = CODES[code]
        self.text = text
        self.remedy = remedy
        self.retry_after_s = retry_after_s
        self.allow = allow

    def sentence(self) -> str:
        return f"{self.text} {self.remedy}".rstrip()

    def headers(self) -> list[tuple[bytes, bytes]]:
        extra = [(b"x-heliostat-code", self.code.encode())]
        if self.retry_after_s is not None:
            extra.append((b"retry-after", str(max(1, round(self.retry_after_s + 0.499))).encode()))
        if self.allow:
            extra.append((b"allow", self.allow.encode()))
        return extra
