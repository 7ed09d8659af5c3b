"""What is measured: one entry for each scenario, with its load, its server and its target."""

from __future__ import annotations

from dataclasses import dataclass, field

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Cookie: session=abcdef0123456789abcdef0123456789; theme=dark; seen=1",
    "Referer: https://example.com/some/page",
    "Upgrade-Insecure-Requests: 1",
    "Cache-Control: max-age=0",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
)


@dataclass(frozen=True)
class Load:
    """Requests on a number of connections, each asking again as soon as it is answered.

    Attributes:
        kind: "http", or "websocket" with `body` bytes in each message.
        path: What is asked for.
        connections: How many at the same time.
        method: Of the request.
        body: Bytes of its body, or of the message.
        headers: More of them, as "Name: value".
        pipeline: Requests in one write.
        close: Whether each request has a connection of its own.
        deflate: Whether the client offers permessage-deflate.
        vary: What is another in each request: "nothing"; "line", the query; "head", that and an X-Request-Id;
            "ends", that and a line at the end. Servers may remember what comes again, and clients differ in how much
            does.
    """

    kind: str = "http"
    path: str = "/"
    connections: int = 32
    method: str = "GET"
    body: int = 0
    headers: tuple[str, ...] = ()
    pipeline: int = 1
    close: bool = False
    deflate: bool = False
    vary: str = "nothing"


@dataclass(frozen=True)
class Scenario:
    """One of the things that are measured.

    Attributes:
        name: For the command line and in samples.
        title: For people.
        load: What the clients do.
        app: The application's import string.
        target: What this server's CPU per request should be at most, as a share of uvicorn's; None where there is none.
        p99: The same of the latency that 99 % of the requests keep below.
        needs: Names that a contender may have among what it cannot do.
        server: Options of the launch.
        quick: Whether it is part of the short run.
        seconds: Of each round at least: a connection that has not been answered by its end is in no latency.
    """

    name: str
    title: str
    load: Load = Load()
    app: str = "plain:app"
    target: float | None = None
    p99: float | None = None
    needs: frozenset[str] = frozenset()
    server: dict[str, object] = field(default_factory=dict)
    quick: bool = False
    seconds: int = 1

    def possible(self, cannot: frozenset[str]) -> bool:
        return not cannot & (self.needs | {self.name})


def websocket(name: str, title: str, body: int, target: float, deflate: bool = False) -> Scenario:
    load = Load(kind="websocket", path="/ws", body=body, deflate=deflate)
    needs = frozenset({"websocket", *(["deflate"] if deflate else [])})
    return Scenario(name, title, load, target=target, needs=needs, quick=name == "ws-1k")


REQUESTS = (
    Scenario("hello", "1 hello, 13 bytes", target=0.45, quick=True),
    Scenario("browser", "2 a browser's headers", Load(headers=BROWSER), target=0.50),
    Scenario(
        "other-lines", "2 a browser's headers, another query each time", Load(headers=BROWSER, vary="line")
    ),
    Scenario(
        "other-heads",
        "2 a browser's headers, another query and X-Request-Id each time",
        Load(headers=BROWSER, vary="head"),
        target=0.50,
        quick=True,
    ),
    Scenario("starlette", "3 Starlette, JSON", Load(path="/items/7"), "frameworks:starlette", target=0.70),
    Scenario(
        "fastapi",
        "3 FastAPI, JSON",
        Load(path="/items/7?q=a"),
        "frameworks:fastapi",
        target=0.85,
        p99=0.3,
        quick=True,
    ),
    Scenario(
        "fastapi-service",
        "3 FastAPI, JSON, 64 connections, with 300,000 objects",
        Load(path="/items/7?q=a", connections=64),
        "service:fastapi",
        p99=0.3,
        needs=frozenset({"fastapi"}),
    ),
    Scenario(
        "fastapi-256",
        "3 FastAPI, JSON, 256 connections",
        Load(path="/items/7?q=a", connections=256),
        "frameworks:fastapi",
        p99=0.3,
        seconds=4,
        needs=frozenset({"fastapi"}),
    ),
    Scenario(
        "access-log", "4 hello, access log to a file", target=0.24, server={"access_log": True}, quick=True
    ),
    Scenario("post-1k", "5 POST of 1 KB", Load(path="/post", method="POST", body=1024), target=0.55),
    Scenario("post-64k", "5 POST of 64 KB", Load(path="/post", method="POST", body=65536), target=0.65),
    Scenario(
        "upload",
        "6 upload of 10 MB",
        Load(path="/upload", method="POST", body=10 << 20, connections=4),
        target=0.5,
    ),
    Scenario("download", "6 download of 10 MiB", Load(path="/download?160", connections=4), target=0.91),
    Scenario(
        "download-chunked",
        "6 download of 10 MiB, chunked",
        Load(path="/download?chunked=160", connections=4),
        needs=frozenset({"download"}),
        target=0.91,
    ),
    Scenario(
        "close",
        "7 a connection for each request",
        Load(close=True),
        target=0.58,
        needs=frozenset({"connections"}),
    ),
    Scenario("pipelining", "8 pipelining, 16 in one write", Load(pipeline=16), target=0.45),
    websocket("ws-16", "9 WebSocket echo, 16 bytes", 16, 0.50),
    websocket("ws-1k", "9 WebSocket echo, 1 KB", 1024, 0.50),
    websocket("ws-64k", "9 WebSocket echo, 64 KB", 65536, 0.65),
    websocket("ws-deflate-1k", "9 WebSocket echo, 1 KB, deflate", 1024, 0.70, deflate=True),
    Scenario("tls", "10 hello over TLS", target=0.65, server={"tls": True}),
)

# How cost grows: with connections on one worker, and with workers under the same load.
GROWTH = (
    *(
        Scenario(
            f"connections-{count}",
            f"hello on {count:,} connection{'s' * (count > 1)}",
            Load(connections=count),
        )
        for count in (1, 10, 100, 1000, 5000)
    ),
    *(
        Scenario(
            f"workers-{count}",
            f"hello, {count} worker{'s' * (count > 1)}, 64 connections",
            Load(connections=64),
            server={"workers": count},
        )
        for count in (1, 2, 4, 8, 16)
    ),
)

SCENARIOS = {each.name: each for each in (*REQUESTS, *GROWTH)}
