"""Masks against oracles that know nothing of tokens, hostile grammars, and the vocabularies of other models."""

import itertools
import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable

import pytest

from model.constraint import Constraint, ConstraintFactory, compile_thread
from model.grammar import ConstraintSpec, GrammarError
from model.tokenizer import Tokenizer
from service.bench.random_gpt2 import make_tokenizer
from tests.vocabularies import llama2

VOCAB_SIZE = 700
"""More rows than tokens: the last ones have no text."""

TOKENIZER = make_tokenizer(600)
END = TOKENIZER.eos_id


def make_factory(tokenizer: Tokenizer = TOKENIZER, vocab_size: int = VOCAB_SIZE) -> ConstraintFactory:
    return ConstraintFactory(lambda: tokenizer, vocab_size=vocab_size, end_ids=[tokenizer.eos_id])


FACTORY = make_factory()


def allowed(constraint: Constraint, vocab_size: int = VOCAB_SIZE) -> set[int]:
    mask = constraint.mask()
    assert constraint.failure is None
    return {token_id for token_id in range(vocab_size) if mask[token_id // 8] >> token_id % 8 & 1}


def expected(so_far: bytes, is_prefix: Callable[[bytes], bool], is_whole: Callable[[bytes], bool]) -> set[int]:
    """Ask an oracle about every token of the vocabulary."""
    tokens = {token_id: TOKENIZER.token_bytes(token_id) for token_id in range(VOCAB_SIZE) if token_id != END}
    return {token_id for token_id, text in tokens.items() if text and is_prefix(so_far + text)} | (
        {END} if is_whole(so_far) else set()
    )


def walk(spec: ConstraintSpec, is_prefix: Callable[[bytes], bool], is_whole: Callable[[bytes], bool]) -> None:
    """Compare the mask with the oracle along random texts."""
    for seed in range(10):
        draw = random.Random(seed)
        constraint, text = FACTORY.make(spec), b""
        for _ in range(30):
            followers = allowed(constraint)
            assert followers == expected(text, is_prefix, is_whole), text
            assert constraint.is_complete == is_whole(text)
            token_id = draw.choice(sorted(followers))
            if token_id == END:
                break
            constraint.accept(token_id)
            text += TOKENIZER.token_bytes(token_id)


def walk_language(spec: ConstraintSpec, language: Iterable[str]) -> None:
    """The same for a language that can be written down."""
    texts = {text.encode() for text in language}
    prefixes = {text[:length] for text in texts for length in range(len(text) + 1)}
    walk(spec, prefixes.__contains__, texts.__contains__)


def test_masks_of_choices_allow_exactly_what_can_become_one() -> None:
    choices = ["a", "ab", "abcd", 'yes, "please"', "na\u00efve \U0001f600", "[x]{2}/\n"]
    walk_language(ConstraintSpec("choice", json.dumps(choices)), choices)


@pytest.mark.parametrize("regex", ["(0|1|ab)*1", "[ab]{2,4}1?", "a|b0+", "(?i)AB?", r"\d\d|[^01]b"])
def test_masks_of_expressions_allow_exactly_what_can_still_match(regex: str) -> None:
    """The oracle tries all texts of some letters, up to a length."""
    letters = sorted({*"01abAB9", *(chr(c) for c in range(256) if re.fullmatch("[xyz]", chr(c)))})
    language = {"".join(text) for n in range(6) for text in itertools.product(letters, repeat=n)}
    matching = {text.encode() for text in language if re.fullmatch(regex, text)}
    tokens = {t: TOKENIZER.token_bytes(t) for t in range(VOCAB_SIZE)}
    known = {t for t, text in tokens.items() if text and all(chr(byte) in letters for byte in text)} | {END}
    prefixes = {text[:length] for text in matching for length in range(len(text) + 1)}
    for prefix in sorted(prefixes, key=len)[:40]:
        constraint = FACTORY.make(ConstraintSpec("regex", regex))
        for byte in prefix:
            constraint.accept(TOKENIZER.encode(chr(byte))[0])
        followers = {t for t in allowed(constraint) & known if len(prefix) + len(tokens[t]) <= 5 or t == END}
        found = {t for t in known - {END} if len(prefix) + len(tokens[t]) <= 5 and prefix + tokens[t] in prefixes}
        assert {t for t in followers if t != END} >= found
        assert (END in followers) == (prefix in matching)


def test_masks_of_schemas_allow_exactly_what_a_byte_by_byte_reading_allows() -> None:
    """A vocabulary of single bytes is slow and obvious: a token may follow where its bytes may, one by one."""
    bytes_only = make_factory(make_tokenizer(257), 257)
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 3}, "n": {"type": "integer", "minimum": -12}},
        "required": ["name"],
        "additionalProperties": {"enum": [None, 1.5, "\u00fc"]},
    }
    spec = ConstraintSpec("json_schema", json.dumps(schema))
    byte_id = {make_tokenizer(257).token_bytes(token_id): token_id for token_id in range(256)}

    def read(text: bytes) -> Constraint | None:
        constraint = bytes_only.make(spec)
        for i in range(len(text)):
            if byte_id[text[i : i + 1]] not in allowed(constraint, 257):
                return None
            constraint.accept(byte_id[text[i : i + 1]])
        return constraint

    draw, constraint, text = random.Random(3), FACTORY.make(spec), b""
    for _ in range(12):
        followers = allowed(constraint)
        reading = read(text)
        assert reading is not None
        firsts = allowed(reading, 257)
        assert (END in followers) == reading.is_complete
        for token_id in followers - {END}:
            assert read(text + TOKENIZER.token_bytes(token_id)) is not None
        for token_id in draw.sample([t for t in range(END) if t not in followers], 30):
            data = TOKENIZER.token_bytes(token_id)
            assert byte_id[data[:1]] not in firsts or read(text + data) is None
        token_id = draw.choice(sorted(followers))
        if token_id == END:
            break
        constraint.accept(token_id)
        text += TOKENIZER.token_bytes(token_id)


def write(
    constraint: Constraint, seed: int, max_tokens: int = 400, tokenizer: Tokenizer = TOKENIZER
) -> tuple[str, bool]:
    """Draw a random text; say whether it came to its end."""
    draw, ids = random.Random(seed), []
    for _ in range(max_tokens):
        token_id = draw.choice(sorted(allowed(constraint)))
        if token_id == END:
            return TOKENIZER.decode(ids), True
        constraint.accept(token_id)
        ids.append(token_id)
    return TOKENIZER.decode(ids), False


@pytest.mark.parametrize("low", [-2, 0, 3])
@pytest.mark.parametrize("keys", [("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")])
def test_numbers_stay_inside_their_bounds(low: int, keys: tuple[str, str]) -> None:
    """Also where both bounds have one whole part."""
    for high in (low + 0.5, low + 1, low + 2.25):
        spec = ConstraintSpec("json_schema", json.dumps({"type": "number", keys[0]: low, keys[1]: high}))
        for value in (
            low - 1,
            low - 0.25,
            low,
            low + 0.125,
            low + 0.5,
            low + 0.75,
            low + 1,
            high,
            high + 0.125,
            high + 1,
        ):
            constraint = FACTORY.make(spec)
            is_inside = low < value < high or (keys[0] == "minimum" and value in (low, high))
            text = json.dumps(value)
            may_follow = all(may_accept(constraint, TOKENIZER.encode(character)[0]) for character in text)
            assert (may_follow and constraint.is_complete) == is_inside, (low, high, value)


def may_accept(constraint: Constraint, token_id: int) -> bool:
    return token_id in allowed(constraint) and constraint.accept(token_id)


def test_whitespace_between_the_tokens_of_json_is_bounded() -> None:
    constraint = FACTORY.make(ConstraintSpec("json_object"))
    space, brace = TOKENIZER.encode(" ")[0], TOKENIZER.encode("{")[0]
    constraint.accept(brace)
    constraint.accept(space)
    assert space not in allowed(constraint)
    constraint = FACTORY.make(ConstraintSpec("json_object"))
    for token_id in [brace, TOKENIZER.encode("\n")[0], *[space] * 32]:
        assert token_id in allowed(constraint)
        constraint.accept(token_id)
    assert space not in allowed(constraint)


def test_control_tokens_and_rows_without_text_never_follow() -> None:
    constraint = FACTORY.make(ConstraintSpec("regex", r"(?s).*"))
    assert max(allowed(constraint)) == END  # the text may end anywhere, but ends it then
    root = json.loads(TOKENIZER.files()["tokenizer.json"])
    assert root["added_tokens"][0]["content"] == "<|endoftext|>"
    constraint = make_factory().make(ConstraintSpec("choice", '["<|endoftext|>"]'))
    assert {TOKENIZER.token_bytes(token_id) for token_id in allowed(constraint)} == {b"<"}


def test_where_nothing_can_follow_the_constraint_says_so() -> None:
    with pytest.raises(GrammarError, match="no text of this vocabulary"):
        FACTORY.make(ConstraintSpec("json_schema", json.dumps({"const": "\u0001"})))
    constraint = FACTORY.make(ConstraintSpec("regex", "ab"))
    constraint.accept(TOKENIZER.encode("9")[0])  # what the mask forbids
    constraint.mask()
    assert constraint.failure is not None
    assert {*constraint.mask()} == {255}


@pytest.mark.parametrize("text", ["{", " {", "x"])
def test_vocabularies_that_open_a_text_with_a_space_show_what_was_asked_for(text: str) -> None:
    """SentencePiece writes the first word with a space, and shows it without."""
    tokenizer = Tokenizer.from_json(llama2(), eos_token="</s>")
    factory = make_factory(tokenizer)
    for opens_text in (False, True):
        for seed in range(5):
            spec = ConstraintSpec("choice", json.dumps([text + "ab c", text]), opens_text=opens_text)
            constraint, draw, ids = factory.make(spec), random.Random(seed), []
            while (token_id := draw.choice(sorted(allowed(constraint)))) != tokenizer.eos_id:
                constraint.accept(token_id)
                ids.append(token_id)
            inside = b"".join(tokenizer.token_bytes(token_id) for token_id in ids).decode()
            assert (tokenizer.decode(ids) if opens_text else inside) in (text + "ab c", text)


def test_states_of_one_grammar_do_not_know_each_other() -> None:
    spec = ConstraintSpec("regex", "ab|cd")
    first, second = FACTORY.make(spec), FACTORY.make(spec)
    first.accept(TOKENIZER.encode("a")[0])
    assert TOKENIZER.encode("c")[0] in allowed(second)
    assert TOKENIZER.encode("c")[0] not in allowed(first)


def test_random_json_parses() -> None:
    found = 0
    for seed in range(30):
        text, is_whole = write(FACTORY.make(ConstraintSpec("json_object")), seed, 60)
        if is_whole:
            found += 1
            assert isinstance(json.loads(text), dict)
    assert found > 3


def chained(num: int) -> dict[str, object]:
    links: dict[str, object] = {f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(num)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{num}": {"type": "integer"}}}


def doubled(kind: str, num: int) -> dict[str, object]:
    links: dict[str, object] = {f"d{i}": {kind: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(num)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{num}": {"type": "integer"}}}


def multiplied(num: int) -> dict[str, object]:
    def either(name: str) -> dict[str, object]:
        return {"anyOf": [{"properties": {name + end: {"type": "integer"}}, "required": [name + end]} for end in "xy"]}

    return {"type": "object", "allOf": [either(f"p{i}") for i in range(num)]}


HOSTILE: dict[str, ConstraintSpec] = {
    name: ConstraintSpec("json_schema", json.dumps(schema))
    for name, schema in {
        "long chain of references": chained(499),
        "never ends": {"$ref": "#/$defs/n", "$defs": {"n": {"items": {"$ref": "#/$defs/n"}, "minItems": 1}}},
        "doubled by allOf": doubled("allOf", 200),
        "doubled by anyOf": doubled("anyOf", 200),
        "multiplied": multiplied(10),
        "multiplied more": multiplied(30),
        "many optional keys": {"type": "object", "properties": {f"p{i}": {} for i in range(2900)}},
        "many required keys": {"properties": {f"p{i}": {} for i in range(2900)}, "required": ["p9"], "type": "object"},
        "huge enum": {"enum": [f"value {i * 7919}" for i in range(18_000)]},
        "long strings": {"type": "string", "minLength": 10**6, "maxLength": 10**9},
        "many items": {"items": {"items": {"minItems": 10**6}, "minItems": 10**6}, "minItems": 10**6},
        "large multiple": {"type": "integer", "multipleOf": 999_999_937},
        "hard pattern": {"type": "string", "pattern": "(a|b)*a(a|b){25}", "minLength": 3, "maxLength": 1000},
        "pattern keys": {"type": "object", "patternProperties": {f"^a{{{i}}}b": {} for i in range(60)}},
    }.items()
} | {
    name: ConstraintSpec("regex", regex)
    for name, regex in {
        "power": "(a{1000}){1000}",
        "power of power": "((a{1000}){1000}){1000}",
        "exponential automaton": "(a|b)*a(a|b){40}",
        "window": ".*a.{300}b",
        "catastrophic backtracking": "(a+)+$",
        "parentheses": "(" * 5000 + "a" + ")" * 5000,
        "many words": "|".join(f"w{i * 7919}" for i in range(20_000)),
        "optional": "(a?){500}a{500}",
        "unicode": r"(\p{L}{1,50}\p{N}{1,50}){1,50}",
    }.items()
}


@pytest.fixture(scope="module")
def complaints() -> dict[str, str | None]:
    """What the program that checks says of all of them."""
    lines = "\n".join(json.dumps([spec.kind, spec.text]) for spec in HOSTILE.values())
    command = [sys.executable, "-m", "model.grammar_check"]
    checked = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=120)
    return dict(zip(HOSTILE, map(json.loads, checked.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grammar_is_refused_or_served_in_bounded_time(name: str, complaints: dict[str, str | None]) -> None:
    """Seconds, of a machine that may be busy; a hang or a crash of the process is what must not be."""
    if complaints[name] is not None:
        return
    with compile_thread() as thread:
        try:
            constraint = thread.submit(FACTORY.make, HOSTILE[name]).result(timeout=60)
        except GrammarError:
            return
    draw = random.Random(0)
    for _ in range(20):
        mask = constraint.mask()
        if constraint.failure is not None:
            return
        token_id = draw.choice([t for t in range(VOCAB_SIZE) if mask[t // 8] >> t % 8 & 1])
        if token_id == END:
            return
        constraint.accept(token_id)


def test_what_never_ends_to_compile_ends_only_the_process_that_checks() -> None:
    schema = {"allOf": [{"type": "string", "pattern": f"[a-z]{{{i}}}x"} for i in range(30)]}
    lines = [json.dumps(["regex", "a+"]), json.dumps(["json_schema", json.dumps(schema)]), json.dumps(["regex", "b+"])]
    command = [sys.executable, "-m", "model.grammar_check"]
    checked = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False, timeout=120)
    assert checked.returncode == -signal.SIGXCPU
    assert checked.stdout == "null\n"


def test_compiled_grammars_are_kept_but_not_without_end() -> None:
    factory = make_factory()
    for i in range(100):
        factory.make(ConstraintSpec("choice", json.dumps([f"a{i}"])))
    assert len(factory._compiled) == 64
