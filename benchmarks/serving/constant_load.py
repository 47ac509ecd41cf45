"""Callers in a closed loop, in a process of their own, that write down when each answer came and what it was.

`python -m benchmarks.serving.constant_load URL KEY FILE [--clients N] [--sdk]` calls until its standard input closes. FILE gets one line
per answer: monotonic seconds (the clock is the machine's, so other processes may compare), what came (`200 v1`, `503 replica_lost`, or the
name of a broken connection's error), and milliseconds. A caller whose connection breaks opens another and goes on. --sdk: calls
through the SDK's Predictor with its retries, so that what came is what a program that uses the SDK sees.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from heliostat.client.prediction import Predictor
from heliostat.wire.errors import HeliostatError

INPUTS = {"x": [[1.0, 2.0, 3.0, 4.0]]}
THINK_S = 0.005
"""Between an answer and the next call: eight callers must not need a core of their own."""
ANSWER_S = 30.0


class Book:
    """One line per answer."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._lock = threading.Lock()

    def add(self, what: str, took_s: float) -> None:
        with self._lock:
            self._file.write(f"{time.monotonic():.4f}\t{what}\t{took_s * 1000:.1f}\n")
            self._file.flush()


async def plain(url: str, key: str, book: Book, end: threading.Event) -> None:
    """One caller on a connection of its own; nothing is sent twice."""
    parts = urlsplit(url)
    body = json.dumps({"inputs": INPUTS}).encode()
    head = (
        f"POST {parts.path}/predict HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while not end.is_set():
        begun = time.monotonic()
        try:
            if streams is None:
                streams = await asyncio.open_connection(parts.hostname, parts.port)
            streams[1].write(head.encode() + body)
            what, keep = await asyncio.wait_for(_answer(streams[0]), ANSWER_S)
            if not keep:
                streams[1].close()
                streams = None
        except (OSError, EOFError, TimeoutError) as error:
            what = type(error).__name__
            if streams is not None:
                streams[1].close()
            streams = None
        book.add(what, time.monotonic() - begun)
        await asyncio.sleep(THINK_S)
    if streams is not None:
        streams[1].close()


async def _answer(reader: asyncio.StreamReader) -> tuple[str, bool]:
    """What came, and whether the connection goes on."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    await reader.readexactly(int(headers.get("content-length", 0)))
    status = lines[0].split(" ", 2)[1]
    said = headers.get("x-heliostat-version") or headers.get("x-heliostat-code") or "of the proxy"
    return f"{status} {said}", headers.get("connection", "").lower() != "close"


def through_sdk(url: str, key: str, book: Book, end: threading.Event) -> None:
    predictor = Predictor(url, key)
    while not end.is_set():
        begun = time.monotonic()
        try:
            answer = predictor.predict(INPUTS)
            what = f"200 {answer['deployment']}"
        except HeliostatError as error:
            what = f"{type(error).__name__} {error.code}"
        book.add(what, time.monotonic() - begun)
        end.wait(THINK_S)
    predictor.close()


def _watch(end: threading.Event) -> None:
    sys.stdin.read()
    end.set()


async def call(url: str, key: str, clients: int, book: Book, end: threading.Event) -> None:
    await asyncio.gather(*(plain(url, key, book, end) for _ in range(clients)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.constant_load")
    parser.add_argument("url")
    parser.add_argument("key")
    parser.add_argument("file")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--sdk", action="store_true")
    options = parser.parse_args()
    end = threading.Event()
    threading.Thread(target=_watch, args=(end,), daemon=True).start()
    with Path(options.file).open("w", encoding="utf-8") as file:
        book = Book(file)
        if options.sdk:
            work = [
                threading.Thread(target=through_sdk, args=(options.url, options.key, book, end))
                for _ in range(options.clients)
            ]
            for thread in work:
                thread.start()
            for thread in work:
                thread.join()
        else:
            asyncio.run(call(options.url, options.key, options.clients, book, end))
    return 0


if __name__ == "__main__":
    sys.exit(main())
