"""The client's HTTP over real sockets: kept connections, ones that died meanwhile, streams, and servers that are none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from heliostat.wire.transport import HttpTransport, Request, TransportError


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, int]]

    def do_GET(self) -> None:
        type(self).seen.append((self.path, self.client_address[1]))
        if self.path == "/stream":
            self.send_response(200)
            self.end_headers()
            self.wfile.write("data: é\n\n".encode())
            self.close_connection = True
            return
        body = f"{self.command} {self.path} {self.headers.get('X-A')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (10 if self.path == "/cut" else 0)))
        self.close_connection = self.path == "/cut"
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if self.path == "/drop":
            self.close_connection = True  # without saying so: the client finds out on its next call

    do_HEAD = do_GET

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def url() -> Iterator[str]:
    Echo.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_connection_serves_many_calls(url: str) -> None:
    transport = HttpTransport(f"{url}/base/")
    for _ in range(3):
        assert transport.send(Request("GET", "/x", {"X-A": "1"})).body == b"GET /base/x 1"
    assert len({port for _, port in Echo.seen}) == 1
    assert transport.send(Request("POST", "/y", body=b"abc")).status == 201
    assert transport.send(Request("HEAD", "/z")).body == b""
    transport.close()


def test_a_kept_connection_that_died_is_replaced(url: str) -> None:
    transport = HttpTransport(url)
    transport.send(Request("GET", "/drop"))
    assert transport.send(Request("GET", "/after")).body == b"GET /after None"
    assert len({port for _, port in Echo.seen}) == 2
    transport.close()


def test_an_answer_that_ends_in_the_middle_is_none(url: str) -> None:
    """The process that sent it died. Half an answer must not pass for one."""
    transport = HttpTransport(url)
    with pytest.raises(TransportError, match="broke"):
        transport.send(Request("GET", "/cut"))
    with transport.stream(Request("GET", "/cut")) as stream, pytest.raises(TransportError, match="broke"):
        stream.read()
    transport.close()


def test_a_stream_is_read_line_by_line(url: str) -> None:
    with HttpTransport(url).stream(Request("GET", "/stream")) as stream:
        assert (stream.status, list(stream.lines())) == (200, ["data: é", ""])


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connecting is refused
        transport = HttpTransport(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(TransportError, match="nothing listens") as caught:
            transport.send(Request("GET", "/"))
        assert caught.value.refused


@pytest.mark.parametrize(
    ("reply", "told"), [(b"SSH-2.0-x\r\n", "does not speak HTTP"), (b"", "broke"), (None, "in time")]
)
def test_a_server_that_is_none(reply: bytes | None, told: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                if reply is None:
                    connection.recv(1000)  # until the client gives up
                else:
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        transport = HttpTransport(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(TransportError, match=told):
            transport.send(Request("GET", "/", timeout_s=0.3))
        thread.join()
