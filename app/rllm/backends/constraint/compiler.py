"""From a constraint to a grammar that answers can be matched with."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from llguidance import LLMatcher, LLTokenizer

from rllm.backends.constraint import grammars, limits, schema
from rllm.backends.constraint.matcher import TokenMatcher
from rllm.backends.constraint.vocabulary import tokenizer_of
from rllm.engine.constraint import Constraint, Kind
from rllm.engine.port import Vocabulary
from rllm.errors import ConstraintRefused

T = TypeVar("T")
_stack_lock = threading.Lock()


class Compiled:
    """What every answer with the same constraint begins with. May be used by several threads."""

    def __init__(self, prototype: LLMatcher, end_tokens: frozenset[int], vocab_size: int) -> None:
        self._prototype = prototype
        self._end_tokens = end_tokens
        self._vocab_size = vocab_size

    def matcher(self, tokens: tuple[int, ...] = ()) -> TokenMatcher:
        """For one answer; ``tokens`` are those that it has already, of a worker that died or after a pause.

        Raises:
            ConstraintBroken: they do not match.
        """
        matcher = TokenMatcher(self._prototype.deep_copy(), self._end_tokens, self._vocab_size)
        for token in tokens:
            matcher.consume(token)
        return matcher


class Compiler:
    """For one vocabulary, which it reads when it is made. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary, *, cache_bytes: int = 64 * 2**20) -> None:
        self._tokenizer = tokenizer_of(vocabulary)
        self._end_tokens = vocabulary.end_tokens
        self._vocab_size = vocabulary.size
        self._cache = _Cache(cache_bytes)

    def compile(self, constraint: Constraint) -> Compiled:
        """Blocks for milliseconds, at most for about a second: for a thread that may wait.

        Raises:
            ConstraintRefused: malformed, not supported, or too much; with the place and the reason.
        """
        grammar, root, places = _grammar_of(constraint)
        key = hashlib.sha256(grammar.encode()).digest()
        known = self._cache.get(key)
        if known is None:
            native = within_limits(lambda: self._compile(grammar, root, places))
            known = Compiled(native, self._end_tokens, self._vocab_size)
            self._cache.put(key, known, _size_of(grammar))
        return known

    @property
    def cached_bytes(self) -> int:
        return self._cache.num_bytes

    def _compile(self, grammar: str, root: dict[str, Any] | None, places: dict[str, str]) -> LLMatcher:
        native = _native(self._tokenizer, grammar)
        _refuse_error(self._tokenizer, native, root, places)
        return native


def check(constraint: Constraint) -> None:
    """`Compiler.compile` without a model: whatever is refused here is refused there.

    Raises:
        ConstraintRefused: as there.
    """
    grammar, root, places = _grammar_of(constraint)
    within_limits(lambda: _refuse_error(_ANY_VOCABULARY, _native(_ANY_VOCABULARY, grammar), root, places))


_ANY_VOCABULARY = LLTokenizer("byte")


def _native(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    return LLMatcher(tokenizer, grammar, log_level=0, limits=limits.PARSER)


def _error_of(native: LLMatcher) -> str:
    """What is wrong with it, at the latest when it is first used; "" if nothing."""
    if not native.is_error():
        native = native.deep_copy()
        if not any(native.compute_bitmask()):
            return "NoExtension"
    return native.get_error()


def _refuse_error(
    tokenizer: LLTokenizer, native: LLMatcher, root: dict[str, Any] | None, places: dict[str, str]
) -> None:
    if error := _error_of(native):
        raise ConstraintRefused("#" if root is None else _locate(tokenizer, root, places), _reason(error))


def _grammar_of(constraint: Constraint) -> tuple[str, dict[str, Any] | None, dict[str, str]]:
    """For llguidance; and of a schema what it was made from, to say where it is at fault."""
    source, spaced = constraint.source, constraint.any_whitespace
    if len(source.encode("utf-8", "replace")) > limits.MOST_SOURCE:
        raise ConstraintRefused("#", f"more than {limits.MOST_SOURCE} bytes")
    match constraint.kind:
        case Kind.JSON_OBJECT | Kind.JSON_SCHEMA:
            given = {"type": "object"} if constraint.kind is Kind.JSON_OBJECT else _parsed(source)
            try:
                root, places = schema.rewritten(given)
            except RecursionError:
                raise ConstraintRefused("#", f"nested deeper than {limits.MOST_DEPTH} schemas") from None
            return _json_grammar(root, any_whitespace=spaced), root, places
        case Kind.REGEX:
            return grammars.regex(source), None, {}
        case Kind.CHOICE:
            return grammars.choice(source), None, {}
        case Kind.GRAMMAR:
            return grammars.grammar(source), None, {}
        case Kind.STRUCTURAL_TAG:
            return grammars.structural_tag(source, any_whitespace=spaced), None, {}


def _parsed(source: str) -> Any:
    try:
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        raise ConstraintRefused("#", f"not JSON: {error}") from None


def _json_grammar(root: dict[str, Any], *, any_whitespace: bool = False) -> str:
    style = {**grammars.JSON_OPTIONS, **grammars.JSON_STYLES[any_whitespace]}
    return json.dumps({"grammars": [{"json_schema": {**root, "x-guidance": style}}]})


def _reason(error: str) -> str:
    """llguidance's words for a caller: their first line, without what was never his."""
    line = error.partition("\n")[0].partition("<state>")[0].strip()
    if line.startswith("oneOf constraints are not supported"):
        return "'oneOf' is supported only where no value can match two branches, and that is plain to see"
    if line.startswith(("NoExtension", "panic:")) or not line:
        return "no answer can match it" if line.startswith("NoExtension") else "too much to compile"
    return line.partition(": json-schema:")[0][:300]


def _locate(tokenizer: LLTokenizer, root: dict[str, Any], places: dict[str, str]) -> str:
    """The innermost part that is refused on its own."""
    definitions = root.get("$defs", {})
    until = time.thread_time() + limits.LOCATE_S

    def is_refused(node: Any) -> bool:
        if time.thread_time() > until or not isinstance(node, dict):
            return False
        return bool(_error_of(_native(tokenizer, _json_grammar({**node, "$defs": definitions}))))

    parts = [(node, places[name]) for name, node in definitions.items()]
    path = "#"
    node: Any = {key: value for key, value in root.items() if key != "$defs"}
    while True:
        parts += [(part, f"{path}/{steps}") for steps, part in _parts(node)]
        found = next(((part, place) for part, place in parts if is_refused(part)), None)
        if found is None:
            return path
        node, path = found
        parts = []


def _parts(node: dict[str, Any]) -> list[tuple[str, Any]]:
    """The schemas directly within one, and the way there."""
    found: list[tuple[str, Any]] = []
    for keyword, value in node.items():
        if keyword in ("properties", "patternProperties"):
            found += [(f"{keyword}/{name}", part) for name, part in value.items()]
        elif keyword in ("prefixItems", "allOf", "anyOf", "oneOf"):
            found += [(f"{keyword}/{index}", part) for index, part in enumerate(value)]
        elif keyword in ("items", "additionalProperties"):
            found.append((keyword, value))
    return found


def within_limits(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread with a deep stack. llguidance drops the GIL meanwhile, and cannot be stopped:
    the thread is left behind when its time is up, which only a hole in `limits` can bring about.

    Raises:
        ConstraintRefused: out of time, by the processor's clock: a busy machine refuses nobody.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    clocks: list[int] = []

    def run() -> None:
        try:
            clocks.append(time.pthread_getcpuclockid(threading.get_ident()))
            results.append(work())
        except BaseException as error:
            errors.append(error)

    with _stack_lock:
        before = threading.stack_size(limits.STACK_BYTES)
        try:
            thread = threading.Thread(target=run, name="compile", daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join(limits.COMPILE_S / 4)
    while thread.is_alive():
        if clocks and _seconds(clocks[0]) > limits.COMPILE_S:
            raise ConstraintRefused("#", f"takes more than {limits.COMPILE_S:g} s to compile")
        thread.join(limits.COMPILE_S / 4)
    if errors:
        raise errors[0]
    return results[0]


def _seconds(clock: int) -> float:
    """Of a thread's processor time."""
    try:
        return time.clock_gettime(clock)
    except OSError:  # it has just ended
        return 0.0


def _size_of(grammar: str) -> int:
    """Bytes that a compiled grammar takes, from above."""
    return 64 * 1024 + 40 * len(grammar)


class _Cache:
    """Compiled lately; what was not asked for longest goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[Compiled, int]] = OrderedDict()
        self.num_bytes = 0

    def get(self, key: bytes) -> Compiled | None:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            return found[0]

    def put(self, key: bytes, compiled: Compiled, num_bytes: int) -> None:
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = (compiled, num_bytes)
            self.num_bytes += num_bytes
            while self.num_bytes > self._most_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self.num_bytes -= freed
