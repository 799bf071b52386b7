"""Who stays and who goes when there are too many connections."""

from __future__ import annotations

import resource

import pytest

from rllm.api.http.connections import Connections, Room, free_descriptors, room_for


class Peer:
    def __init__(self, connections: Connections) -> None:
        self.is_cut = False
        connections.entered(self)

    def cut(self) -> None:
        self.is_cut = True


def test_the_one_that_has_been_idle_longest_makes_room() -> None:
    connections = Connections(Room(3, 2))
    first, second, third = (Peer(connections) for _ in range(3))
    connections.is_busy(first)
    connections.is_busy(second)
    connections.is_idle(first)
    fourth = Peer(connections)
    assert [peer.is_cut for peer in (first, second, third, fourth)] == [False, False, True, False]
    connections.left(third)
    assert not connections.are_too_many


def test_where_all_are_busy_a_burst_is_let_in_to_be_refused_and_no_more() -> None:
    connections = Connections(Room(2, 1))
    busy = [Peer(connections) for _ in range(2)]
    for peer in busy:
        connections.is_busy(peer)
    assert not connections.are_too_many
    further = Peer(connections)
    assert connections.are_too_many
    connections.is_busy(further)
    last = Peer(connections)
    assert [peer.is_cut for peer in (*busy, further, last)] == [False, False, False, True]


@pytest.mark.parametrize(("descriptors", "workers"), [(220, 1), (220, 4), (1000, 1), (1000, 16), (65500, 8)])
def test_room_is_left_for_the_server_and_its_workers(descriptors: int, workers: int) -> None:
    room = room_for(descriptors, workers)
    assert room.connections > 0
    assert room.connections + room.burst + 64 + 12 * workers <= descriptors


def test_the_operators_limit_holds_where_it_is_lower() -> None:
    assert room_for(1000, 1, most=7).connections == 7
    assert room_for(1000, 1, most=7000) == room_for(1000, 1)


def test_descriptors_are_counted_after_the_limit_was_raised() -> None:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 128), hard))
        assert free_descriptors() > min(hard, 65536) - 128
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
