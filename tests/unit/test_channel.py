"""The socket between the API process and a worker: messages arrive whole, in order, or not at all."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from rllm.workers.channel import MOST, Channel, Cutter, pack
from rllm.workers.frames import Cancel, Stop, encode
from rllm.workers.link import Link


@given(st.lists(st.binary(max_size=9)), st.lists(st.integers(1, 12)))
def test_messages_survive_however_the_stream_is_cut(messages: list[bytes], sizes: list[int]) -> None:
    stream, cutter, received = b"".join(map(pack, messages)), Cutter(), []
    for size in [*sizes, len(stream)]:
        received += cutter.cut(stream[:size])
        stream = stream[size:]
    assert received == messages


async def _until(condition: asyncio.Event) -> None:
    await asyncio.wait_for(condition.wait(), 10)


async def test_what_the_socket_does_not_take_at_once_is_sent_later() -> None:
    channel = Channel(lambda _: None)
    link = Link(os.dup(channel.fd))
    names = ["x" * 3 * MOST, "y"]
    with closing(channel), closing(link):
        for name in names:
            channel.send(encode(Cancel(name)))
        taken = await asyncio.wait_for(asyncio.to_thread(_take, link, len(names)), 10)
    assert taken == [Cancel(name) for name in names]


def _take(link: Link, count: int) -> list[object]:
    taken: list[object] = []
    while len(taken) < count:
        taken += link.commands(wait=True)
    return taken


async def test_what_a_process_left_behind_is_delivered_in_order() -> None:
    received: list[bytes] = []
    channel = Channel(received.append)
    with closing(channel), socket.socket(fileno=os.dup(channel.fd)) as worker:
        channel.started()
        channel.listen()
        channel.send(b"never read: the worker's end is reset")
        worker.sendall(pack(b"first") + pack(b"last") + b"\x05\x00\x00\x00cut")
        worker.close()
        channel.finish()
        channel.send(b"lost")
    assert received == [b"first", b"last"]


async def test_messages_are_heard_as_they_come() -> None:
    heard = asyncio.Event()
    channel = Channel(lambda _: heard.set())
    with closing(channel), socket.socket(fileno=os.dup(channel.fd)) as worker:
        channel.listen()
        for _ in range(2):
            worker.sendall(pack(b"message"))
            await _until(heard)
            heard.clear()


def test_a_worker_whose_other_side_is_gone_is_told_to_stop() -> None:
    ours, theirs = socket.socketpair()
    link = Link(theirs.detach())
    with closing(link):
        ours.close()
        assert list(link.commands(wait=True)) == [Stop()]
        link.send(Stop())  # type: ignore[arg-type] # nobody hears it, and that is no error
