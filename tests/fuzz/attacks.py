"""What a certified but hostile site may send to a coordinator; and somebody without a certificate.

Each attack is a function of a ``Hostile`` that does a small amount of harm and says how it was answered, status by
status. It goes round and round until its time is over; a fixed seed and number of rounds make it repeatable.
"""

import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mammofed_shared.pki import Identity, make_key, make_request
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.wire import CALLS, SERVICE
from raw_site import RawSite

Answers = Counter[str]
TIMEOUT_S = 20.0


@dataclass
class Hostile:
    """Who attacks: an enrolled site, its open task, and the task of somebody else."""

    identity: Identity
    port: int
    own_task: str
    others_task: str
    random: random.Random
    folder: Path

    @contextmanager
    def site(self, *options: tuple[str, object]) -> Iterator[RawSite]:
        """A connection of its own."""
        opened = RawSite(self.identity, self.port, *options)
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def tls(self) -> Iterator[ssl.SSLSocket]:
        """A connection below grpc: bytes of HTTP/2 are the attacker's own."""
        context = ssl.create_default_context(cadata=self.identity.root_pem.decode())
        for name, pem in (("chain.pem", self.identity.chain_pem), ("key.pem", self.identity.key_pem)):
            (self.folder / name).write_bytes(pem)
        context.load_cert_chain(self.folder / "chain.pem", self.folder / "key.pem")
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            secure.settimeout(TIMEOUT_S)
            yield secure


# ── messages ────────────────────────────────────────────────────────────────────────────────────────────────────


def valid_messages(hostile: Hostile) -> list[tuple[str, bytes]]:
    """One right request of every call, with its own task and with another's."""
    found = [
        ("Hello", pb.HelloRequest(protocol_version=3, software_contract="mammofed-1", site="mayo", code="0" * 64)),
        ("Poll", pb.PollRequest(state=pb.TRAINING, step=3, num_steps=9, loss=1.5, samples_per_s=2.0)),
        ("Renew", pb.RenewRequest(certificate_request=make_request(make_key(), "spiffe://hospitals/site/mayo"))),
    ]
    for task in (hostile.own_task, hostile.others_task):
        header = pb.SubmitHeader(task_id=task, metrics={"num_exams": 1.0, "loss": 2.0})
        header.payload.digest, header.payload.size = "a" * 64, 1000
        header.statement.filters.add(kind=pb.GAUSSIAN_NOISE, value=1.0)
        found += [
            ("Poll", pb.PollRequest(state=pb.TRAINING, task_id=task)),
            ("Fetch", pb.FetchRequest(task_id=task, offset=1)),
            ("Offset", pb.OffsetRequest(task_id=task)),
            ("Submit", pb.SubmitPart(header=header)),
            ("Submit", pb.SubmitPart(data=bytes(100))),
        ]
    found.append(("Fail", pb.FailRequest(task_id=hostile.others_task, refusal_code=13)))
    return [(name, message.SerializeToString()) for name, message in found]


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """A message with some of its bytes changed, cut, doubled or filled up."""
    data = bytearray(raw)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.choice((1, 2, 8, 300)))
        elif kind == 3:
            del data[at : at + chance.randint(1, 12)]
        elif kind == 4:
            data += data[at:]
        else:
            data[at:at] = b"\xff" * chance.randint(1, 10)
    return bytes(data[:6000])


def send_garbage(hostile: Hostile) -> Answers:
    """Random bytes to every call."""
    with hostile.site() as site:
        return Counter(
            _status(
                site.outcome(name, _request(name, hostile.random.randbytes(hostile.random.choice((0, 3, 50, 900)))))
            )
            for name in CALLS
        )


def send_mutations(hostile: Hostile) -> Answers:
    """Right messages with some bytes changed."""
    answers: Answers = Counter()
    with hostile.site() as site:
        for name, raw in valid_messages(hostile):
            answers[_status(site.outcome(name, _request(name, mutated(raw, hostile.random))))] += 1
    return answers


def ask_for_others_tasks(hostile: Hostile) -> Answers:
    """The task of another site in every call that names one."""
    with hostile.site() as site:
        return Counter(
            _status(site.outcome(name, _request(name, raw)))
            for name, raw in valid_messages(hostile)
            if hostile.others_task.encode() in raw
        )


PATHS = (
    "../../../etc/passwd",
    "/etc/passwd",
    "..",
    "a/../../b",
    "\0",
    "a" * 500,
    "%2e%2e/",
    "upmc",
    "~root",
    "C:\\x",
    "",
)


def play_path_tricks(hostile: Hostile) -> Answers:
    """Paths in place of tasks."""
    run, number, visit, _, kind = hostile.own_task.split("/")
    path = hostile.random.choice(PATHS)
    tasks = [path, f"{hostile.own_task}/{path}", "/".join((run, number, visit, path, kind)), hostile.own_task + "\n"]
    answers: Answers = Counter()
    with hostile.site() as site:
        for task in tasks:
            for name, message in (
                ("Fetch", pb.FetchRequest(task_id=task)),
                ("Offset", pb.OffsetRequest(task_id=task)),
                ("Fail", pb.FailRequest(task_id=task, refusal_code=13)),
                ("Submit", pb.SubmitPart(header=pb.SubmitHeader(task_id=task))),
            ):
                answers[_status(site.outcome(name, _request(name, message.SerializeToString())))] += 1
    return answers


def ask_for_strange_certificates(hostile: Hostile) -> Answers:
    """Certificate requests of other keys, other names, other sizes."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    huge = builder.sign(rsa.generate_private_key(65537, 1024), hashes.SHA256()).public_bytes(Encoding.PEM)
    right = make_request(make_key(), "spiffe://hospitals/site/upmc")
    chance = hostile.random
    sent = [huge, right, mutated(right, chance), right * 8, b"-----BEGIN CERTIFICATE REQUEST-----\n" + b"A" * 3000]
    with hostile.site() as site:
        requests = [pb.RenewRequest(certificate_request=item).SerializeToString() for item in sent]
        return Counter(_status(site.outcome("Renew", raw)) for raw in requests)


# ── too much ────────────────────────────────────────────────────────────────────────────────────────────────────


def call_by_the_thousand(hostile: Hostile) -> Answers:
    """2,000 calls as fast as they go, over four connections."""
    answers, lock = Counter[str](), threading.Lock()
    raw = pb.OffsetRequest(task_id=hostile.own_task).SerializeToString()

    def flood() -> None:
        with hostile.site() as site:
            calls = [site.call("Offset").future(raw, timeout=TIMEOUT_S) for _ in range(500)]
            found = Counter(str(call.code().name) for call in calls)
        with lock:
            answers.update(found)

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def stay_silent(hostile: Hostile) -> Answers:
    """Calls of every kind that never send a message, on three connections."""
    over = threading.Event()
    with hostile.site() as a, hostile.site() as b, hostile.site() as c:
        calls = [site.streams(name)(iter(over.wait, True), timeout=1.0) for site in (a, b, c) for name in CALLS]
        answers = Counter(_code(call) for call in calls)
        over.set()
    return answers


def send_without_end(hostile: Hostile) -> Answers:
    """Uploads that go on and on: past their size, byte by byte, header after header."""
    header = pb.SubmitHeader(task_id=hostile.own_task, metrics={"num_exams": 1.0})
    header.payload.digest, header.payload.size = "b" * 64, 3_000_000
    head = pb.SubmitPart(header=header).SerializeToString()
    chunk = pb.SubmitPart(data=bytes(250_000)).SerializeToString()
    byte = pb.SubmitPart(data=b"x").SerializeToString()
    sent: list[Iterable[bytes]] = [
        [head, *[chunk] * 100],
        [head, *[byte] * 2000],
        [head] * 2000,
        [byte, head],
        [head, b"", b"", chunk],
        [head, pb.SubmitPart(data=bytes(900_000)).SerializeToString()],
    ]
    with hostile.site() as site:
        return Counter(_status(site.outcome("Submit", parts)) for parts in sent)


def announce_the_impossible(hostile: Hostile) -> Answers:
    """Sizes, offsets and counts at the ends of their types; thousands of numbers that nobody declared."""
    top = 2**64 - 1
    header = pb.SubmitHeader(task_id=hostile.own_task, offset=top)
    header.payload.digest, header.payload.size = "c" * 64, top
    many = pb.SubmitHeader(task_id=hostile.own_task, metrics={f"number/{n}": 1.0 for n in range(20_000)})
    sent = [
        ("Fetch", pb.FetchRequest(task_id=hostile.own_task, offset=top)),
        ("Poll", pb.PollRequest(state=pb.READY, wait_s=2**32 - 1, task_id=hostile.own_task, loss=float("nan"))),
        ("Hello", pb.HelloRequest(protocol_version=2**32 - 1, site="m" * 1500)),
        ("Submit", pb.SubmitPart(header=header)),
        ("Submit", pb.SubmitPart(header=many)),
        ("Fail", pb.FailRequest(task_id=hostile.others_task, refusal_code=2**32 - 1)),
    ]
    with hostile.site() as site:
        return Counter(_status(site.outcome(name, _request(name, item.SerializeToString()))) for name, item in sent)


def throw_headers(hostile: Hostile) -> Answers:
    """Headers of 100 KB: many, long, binary."""
    bombs = (
        [(f"x-{number}", "y" * 1000) for number in range(100)],
        [("x", "y" * 100_000)],
        [("x-bin", bytes(70_000))],
        [(f"k{number}", "v") for number in range(3000)],
    )
    with hostile.site() as site:
        return Counter(_status(site.outcome("Poll", b"", metadata=bomb)) for bomb in bombs)


def download_without_reading(hostile: Hostile) -> Answers:
    """Downloads whose chunks are never taken, on connections that are then dropped."""
    raw = pb.FetchRequest(task_id=hostile.own_task).SerializeToString()
    with hostile.site() as a, hostile.site() as b:
        calls = [site.call("Fetch")(raw, timeout=0.5) for site in (a, b, a, b)]
        return Counter(_code(call) for call in calls)


# ── below grpc ──────────────────────────────────────────────────────────────────────────────────────────────────

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _RST, _SETTINGS, _PING, _CONTINUATION = 1, 3, 4, 6, 9


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _call_headers(task: str = "Poll") -> bytes:
    """Headers of one call in HPACK, every field a literal (RFC 7541, section 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": f"/{SERVICE}/{task}",
        ":authority": "127.0.0.1",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    texts = [text.encode() for pair in fields.items() for text in pair]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in pairs)


def _exchange(hostile: Hostile, what: str, frames: bytes) -> Answers:
    """Send bytes, read what comes until the coordinator closes or is silent."""
    try:
        with hostile.tls() as connection:
            connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + frames)
            connection.settimeout(0.3)
            while connection.recv(65_536):
                pass
    except TimeoutError:
        return Counter({f"{what}: kept open": 1})
    except OSError:
        pass
    return Counter({f"{what}: closed": 1})


def reset_rapidly(hostile: Hostile) -> Answers:
    """1,000 calls that are reset as soon as they are opened (CVE-2023-44487)."""
    head = _call_headers()
    opened = (_frame(_HEADERS, 4, n, head) + _frame(_RST, 0, n, bytes([0, 0, 0, 8])) for n in range(1, 2001, 2))
    return _exchange(hostile, "resets", b"".join(opened))


def ping_and_set(hostile: Hostile) -> Answers:
    """5,000 pings, 5,000 settings, and headers that are continued without end (CVE-2024-27316)."""
    return (
        _exchange(hostile, "pings", _frame(_PING, 0, 0, bytes(8)) * 5000)
        + _exchange(hostile, "settings", _frame(_SETTINGS, 0, 0, bytes([0, 3, 0, 0, 0, 9])) * 5000)
        + _exchange(
            hostile,
            "continued headers",
            _frame(_HEADERS, 0, 1, _call_headers())
            + _frame(_CONTINUATION, 0, 1, b"\x00\x01x\x7f\x00" + b"y" * 127) * 5000,
        )
    )


def break_frames(hostile: Hostile) -> Answers:
    """Frames that are none: random bytes, impossible lengths, bytes of HTTP/1."""
    chance = hostile.random
    kinds = (
        chance.randbytes(2000),
        b"\xff\xff\xff" + chance.randbytes(20),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        mutated(_frame(_HEADERS, 4, 1, _call_headers()), chance),
    )
    answers: Answers = Counter()
    for frames in kinds:
        answers += _exchange(hostile, "frames", frames)
    return answers


def knock_without_certificate(hostile: Hostile) -> Answers:
    """100 handshakes without certificate, 20 connections that say nothing, and bytes that are no TLS."""
    context = ssl.create_default_context(cadata=hostile.identity.root_pem.decode())
    context.set_alpn_protocols(["h2"])
    answers: Answers = Counter()
    silent = [socket.create_connection(("127.0.0.1", hostile.port), TIMEOUT_S) for _ in range(20)]
    for _ in range(100):
        heard = b""
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", hostile.port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            heard = secure.recv(1)
        answers["answered" if heard else "closed"] += 1
    for one in silent:
        with suppress(OSError):
            one.sendall(hostile.random.randbytes(100))
        one.close()
    return answers


Attack = Callable[[Hostile], Answers]
READ: tuple[Attack, ...] = (
    send_garbage,
    send_mutations,
    ask_for_others_tasks,
    play_path_tricks,
    announce_the_impossible,
    ask_for_strange_certificates,
    send_without_end,
)
"""Against a coordinator whose limit of calls a second is lifted: most of it would not be read otherwise."""
AS_IT_IS: tuple[Attack, ...] = (
    call_by_the_thousand,
    stay_silent,
    download_without_reading,
    throw_headers,
    reset_rapidly,
    ping_and_set,
    break_frames,
    knock_without_certificate,
)


def _request(name: str, raw: bytes) -> bytes | list[bytes]:
    return [raw] if CALLS[name].request_streams else raw


def _status(outcome: str) -> str:
    return outcome.split(":")[0]


def _code(call: Any) -> str:
    """How a call with a stream of replies ended."""
    with suppress(grpc.RpcError):
        for _ in call:
            pass
    return str(call.code().name)
