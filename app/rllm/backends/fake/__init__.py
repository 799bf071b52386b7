"""A backend without a model, for tests of everything above it. It may not be kinder than the real one.

**Text.** Tokens are bytes, plus three control tokens. The next token is a function of the tokens that
the sequence really holds in the fake cache (and of the seed, unless greedy), so wrong bookkeeping of
the cache shows as wrong text. `continuation` is that function, for a test to compare with. Left alone,
a sequence rambles in lower-case letters and never ends.

**Directives** in a prompt decide what happens instead; they also work across a process border. They
belong at the end of a prompt, or of the last user message:

    [[say Hello, wörld]]    answer exactly this, then end
    [[fail 3]]              this sequence fails when it would draw its fourth token (number 3)
    [[die 3]]               the backend raises BackendFailed then
    [[oom 3]]               the same, for want of memory
    [[hang 3]]              the step never returns (a wedged llama_decode)
    [[abort 3]]             the process aborts, as an assertion in llama.cpp makes it
    [[say Hello]][[die 3]]  together; the number may be left out (0)

**Scripts.** `FakeScript` has hooks for tests in the same process: a callable before each step (which
may wait for the test's own event), another rule for the next token, refusals, faults by step.

Unlike llama.cpp, it raises `ContractBroken` where a plan breaks the port's rules.
"""

from rllm.backends.fake.answers import continuation
from rllm.backends.fake.backend import FakeBackend, FakeScript
from rllm.backends.fake.cells import ContractBroken
from rllm.backends.fake.vocabulary import FakeVocabulary

__all__ = ["ContractBroken", "FakeBackend", "FakeScript", "FakeVocabulary", "continuation"]
