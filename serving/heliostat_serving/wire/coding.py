"""Content-Encoding: gzip and deflate, both ways. A compressed body counts by what it unpacks to, and never unpacks further."""

from __future__ import annotations

import gzip
import zlib

from heliostat_serving.wire.faults import Fault

GZIP = 16 + zlib.MAX_WBITS
WORTH_BYTES = 512
"""Smaller answers are sent as they are, whatever the client accepts."""
PIECE_BYTES = 1 << 16
MAX_MEMBERS = 1000
"""Parts of a gzip body (parallel compressors make one per block). Each costs a new unpacker, whatever little it holds."""


def unpack(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            return _inflate(body, GZIP, limit_bytes)
        case "deflate":  # zlib by the standard, raw deflate by habit
            wrapped = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
            return _inflate(body, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, limit_bytes)
    raise Fault(
        "unsupported_media", f"Content-Encoding {encoding[:50]} is not understood.", "Use gzip, deflate or none."
    )


def _inflate(body: bytes, bits: int, limit_bytes: int) -> bytes:
    """In pieces, so that the rest of a body with many members is not copied for each of them."""
    out = bytearray()
    at = members = 0
    while at < len(body) or not members:
        unpacker = zlib.decompressobj(bits)
        while not unpacker.eof:
            piece = unpacker.unconsumed_tail or body[at : at + PIECE_BYTES]
            if not piece:
                raise Fault("bad_encoding", "The compressed body ends early.")
            if not unpacker.unconsumed_tail:
                at += len(piece)
            try:
                out += unpacker.decompress(piece, limit_bytes + 1 - len(out))
            except zlib.error as error:
                raise Fault("bad_encoding", f"The compressed body is damaged: {error}.") from error
            if len(out) > limit_bytes:
                raise Fault(
                    "body_too_large", f"The body unpacks to more than {limit_bytes} bytes.", "Send fewer rows at once."
                )
        at -= len(unpacker.unused_data)
        members += 1
        if at < len(body) and bits != GZIP:
            raise Fault("bad_encoding", "There are bytes after the compressed body.")
        if members > MAX_MEMBERS:
            raise Fault("bad_encoding", f"The compressed body has more than {MAX_MEMBERS} parts.", "Compress it whole.")
    return bytes(out)


def accepted(accept: str) -> str:
    """The encoding for the answer, from Accept-Encoding: gzip, deflate or "" (q=0 refuses)."""
    wanted: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, _, rest = part.strip().partition(";")
        try:
            quality = float(rest.partition("q=")[2] or 1.0)
        except ValueError:
            quality = 0.0
        wanted[name.strip()] = quality
    return next((name for name in ("gzip", "deflate") if wanted.get(name, 0.0) > 0), "")


def pack(body: bytes, encoding: str) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0) if encoding == "gzip" else zlib.compress(body, 1)
