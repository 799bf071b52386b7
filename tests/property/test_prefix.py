"""The prefix index against its simple twin: a dictionary of token lists, searched one by one."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rllm.engine.prefix import PrefixIndex

TOKENS = st.lists(st.integers(0, 1), max_size=8)
SALTS = st.sampled_from(["", "tenant"])
SEQS = st.integers(0, 4)


def common(left: list[int], right: list[int]) -> int:
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length


class IndexMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex()
        self.held: dict[int, tuple[str, list[int]]] = {}
        self.computed: dict[int, int] = {}

    @rule(seq=SEQS, tokens=TOKENS, salt=SALTS, share=st.floats(0, 1))
    def insert(self, seq: int, tokens: list[int], salt: str, share: float) -> None:
        if seq in self.held:
            return
        self.index.insert(seq, tokens, salt)
        self.held[seq] = (salt, list(tokens))
        self.computed[seq] = round(share * len(tokens))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), tokens=TOKENS)
    def extend(self, data: st.DataObject, tokens: list[int]) -> None:
        seq = data.draw(st.sampled_from(sorted(self.held)))
        self.index.extend(seq, tokens)
        self.held[seq][1].extend(tokens)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.held)))
        tokens = self.held[seq][1]
        length = data.draw(st.integers(0, len(tokens)))
        self.index.truncate(seq, length)
        del tokens[length:]
        self.computed[seq] = min(self.computed[seq], length)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.held)))
        self.index.remove(seq)
        del self.held[seq], self.computed[seq]

    @rule(tokens=TOKENS, salt=SALTS)
    def match(self, tokens: list[int], salt: str) -> None:
        found = self.index.match(tokens, lambda seq: self.computed[seq], salt)
        depths = {seq: common(tokens, held) for seq, (at, held) in self.held.items() if at == salt}
        now = {seq: min(depth, self.computed[seq]) for seq, depth in depths.items()}
        assert found.length == max(now.values(), default=0)
        assert found.soon_length == max(depths.values(), default=0)
        if found.length:
            assert now[found.seq] == found.length

    @invariant()
    def adds_up(self) -> None:
        self.index.check()
        for seq, (_, tokens) in self.held.items():
            assert self.index.length(seq) == len(tokens)


TestIndex = IndexMachine.TestCase
