"""POST /v1/completions in front of a scripted worker: the object, the choices, the settings that reach the worker."""

import math
from typing import Any

import pytest

from model.tokenizer import Tokenizer
from service import metrics
from service.host.messages import Admitted, Token, TokenLogprob
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import Service, writes

PATH = "/v1/completions"
BASE: dict[str, Any] = {"model": "tiny-base", "prompt": "Hello"}


def complete(service: Service, **changes: Any) -> dict[str, Any]:
    response = service.post(PATH, BASE | changes)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def sent_params(service: Service, **changes: Any) -> Any:
    complete(service, **changes)
    return service.generate.requests[-1].params


def test_answer_has_the_whole_object(service: Service, tokenizer: Tokenizer) -> None:
    answer = complete(service)
    num_prompt, num_output = len(tokenizer.encode("Hello")), len(tokenizer.encode("Hi!"))
    assert answer["id"].startswith("cmpl-")
    assert len(answer["id"]) == len("cmpl-") + 32
    assert answer["object"] == "text_completion"
    assert isinstance(answer["created"], int)
    assert answer["model"] == "tiny-base"
    assert answer["system_fingerprint"].startswith("fp_")
    assert len(answer["system_fingerprint"]) == 13
    assert answer["choices"] == [
        {"index": 0, "text": "Hi!", "logprobs": None, "finish_reason": "length", "stop_reason": None}
    ]
    assert answer["usage"] == {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_output,
        "total_tokens": num_prompt + num_output,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_every_setting_reaches_the_worker(service: Service) -> None:
    params = sent_params(
        service,
        max_tokens=7,
        min_tokens=2,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=0.3,
        frequency_penalty=-0.3,
        logit_bias={"5": -100, "6": 2.5},
        seed=-4,
        stop_token_ids=[9],
        ignore_eos=True,
        logprobs=3,
    )
    assert (params.max_tokens, params.min_tokens, params.temperature, params.top_p) == (7, 2, 0.5, 0.9)
    assert (params.top_k, params.min_p, params.repetition_penalty) == (40, 0.1, 1.2)
    assert (params.presence_penalty, params.frequency_penalty) == (0.3, -0.3)
    assert params.logit_bias == ((5, -100.0), (6, 2.5))
    assert (params.seed, params.stop_token_ids, params.ignore_eos) == (-4, (9,), True)
    assert (params.logprobs, params.prompt_logprobs) == (3, None)


def test_defaults_are_the_public_ones(service: Service) -> None:
    params = sent_params(service)
    assert (params.max_tokens, params.temperature, params.top_p, params.top_k) == (16, 1.0, 1.0, 0)
    assert params.logprobs is None
    assert 0 <= params.seed < 2**63


def test_zero_is_a_value(service: Service) -> None:
    params = sent_params(service, temperature=0, top_p=0, seed=0)
    assert (params.temperature, params.top_p, params.seed) == (0.0, 0.0, 0)


def test_null_is_an_omitted_field(service: Service) -> None:
    nothing = dict.fromkeys(("max_tokens", "temperature", "n", "stop", "seed", "logprobs", "stream", "user", "suffix"))
    assert sent_params(service, **nothing).max_tokens == 16


def test_whole_floats_are_integers(service: Service) -> None:
    assert sent_params(service, max_tokens=3.0, seed=5.0).seed == 5


@pytest.mark.parametrize("prompt", [None, ""])
def test_no_prompt_is_the_start_of_a_text(service: Service, tokenizer: Tokenizer, prompt: str | None) -> None:
    complete(service, prompt=prompt)
    assert service.generate.requests[0].prompt_ids == [tokenizer.special_tokens["<|endoftext|>"]]


def test_control_tokens_in_a_prompt_are_parsed_unless_told_otherwise(service: Service, tokenizer: Tokenizer) -> None:
    complete(service, prompt="a<|endoftext|>")
    complete(service, prompt="a<|endoftext|>", parse_special=False)
    parsed, plain = (request.prompt_ids for request in service.generate.requests)
    assert parsed == tokenizer.encode("a<|endoftext|>", parse_special=True)
    assert plain == tokenizer.encode("a<|endoftext|>")


def test_choices_are_numbered_prompt_by_prompt(service: Service) -> None:
    answer = complete(service, prompt=[[1, 2], [3]], n=2, seed=1)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    sent = [(request.prompt_ids, request.choice) for request in service.generate.requests]
    assert sent == [([1, 2], 0), ([1, 2], 1), ([3], 0), ([3], 1)]
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 4 * len(service.models.get("tiny-base").tokenizer.encode("Hi!"))


def test_prompts_without_a_seed_get_noise_of_their_own(service: Service) -> None:
    complete(service, prompt=["a", "a"], n=2)
    seeds = [request.params.seed for request in service.generate.requests]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]


def test_greedy_choices_are_computed_once_and_shown_n_times(service: Service) -> None:
    answer = complete(service, n=3, temperature=0)
    assert len(service.generate.requests) == 1
    assert [choice["text"] for choice in answer["choices"]] == ["Hi!"] * 3


def test_end_token_counts_but_does_not_show(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("Hi"), tokenizer.eos_id]
    answer = complete(make_service(generate=writes(ids, finish="stop")), skip_special_tokens=False)
    assert answer["choices"][0]["text"] == "Hi"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["stop_reason"] is None
    assert answer["usage"]["completion_tokens"] == len(ids)


def test_stop_token_is_the_reason_and_does_not_show(make_service: ServiceMaker) -> None:
    def script(message: Any) -> Any:
        yield Admitted(message.uid, 0.0, 0)
        yield Token(message.uid, 40)
        yield Token(message.uid, 41, finish_reason="stop", stop_token_id=41)

    service = make_service(generate=script)
    choice = complete(service, stop_token_ids=[41], return_token_ids=True)["choices"][0]
    assert choice["stop_reason"] == 41
    assert choice["token_ids"] == [40, 41]
    assert choice["text"] == service.models.get("tiny-base").tokenizer.decode([40])


def test_stop_string_cuts_the_text_and_cancels_the_sequence(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    service = make_service(generate=writes(tokenizer.encode("one two three four"), finish=None))
    answer = complete(service, stop=["four", "o three"])
    assert answer["choices"][0]["text"] == "one tw"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["stop_reason"] == "o three"
    assert service.generate.cancelled == [service.generate.requests[0].uid]


def test_stop_string_can_stay_in_the_text(make_service: ServiceMaker) -> None:
    answer = complete(make_service(text="one two"), stop=" t", include_stop_str_in_output=True)
    assert answer["choices"][0]["text"] == "one t"


def test_stop_string_that_is_a_control_token_stops_at_its_id(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    user = tokenizer.special_tokens["<|user|>"]

    def script(message: Any) -> Any:
        yield Admitted(message.uid, 0.0, 0)
        yield Token(message.uid, 40)
        yield Token(message.uid, user, finish_reason="stop", stop_token_id=user)

    service = make_service(generate=script)
    choice = complete(service, stop=["<|user|>"])["choices"][0]
    assert service.generate.requests[0].params.stop_token_ids == (user,)
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "<|user|>")


def test_stop_strings_do_not_count_in_the_first_tokens(make_service: ServiceMaker) -> None:
    text = "one two one two"
    service = make_service(text=text)
    num_tokens = len(service.models.get("tiny-base").tokenizer.encode("one two"))
    choice = complete(service, stop="two", min_tokens=num_tokens)["choices"][0]
    assert choice["text"] == "one two one "


def test_echo_puts_the_prompt_in_front(service: Service) -> None:
    assert complete(service, echo=True)["choices"][0]["text"] == "HelloHi!"
    events = service.stream(PATH, BASE | {"echo": True})
    assert events[0]["choices"][0]["text"] == "Hello"
    assert "".join(event["choices"][0]["text"] for event in events) == "HelloHi!"


def test_scoring_alone_generates_nothing(make_service: ServiceMaker) -> None:
    scores = [None, TokenLogprob(-1.0, [(5, -0.5)]), TokenLogprob(-2.0, [(6, -2.0)])]

    def script(message: Any) -> Any:
        yield Admitted(message.uid, 0.0, 0)
        yield Token(message.uid, None, prompt_logprobs=scores, finish_reason="length")

    service = make_service(generate=script)
    answer = complete(service, prompt=[7, 8, 9], max_tokens=0, echo=True, logprobs=1)
    params = service.generate.requests[0].params
    assert (params.max_tokens, params.logprobs, params.prompt_logprobs) == (0, 1, 1)
    tokenizer = service.models.get("tiny-base").tokenizer
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"] == [None, -1.0, -2.0]
    assert logprobs["top_logprobs"][0] is None
    assert set(logprobs["top_logprobs"][1].values()) == {-0.5, -1.0}
    assert answer["choices"][0]["text"] == tokenizer.decode([7, 8, 9])
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_evaluation_harness_finds_one_entry_for_each_token(make_service: ServiceMaker, stream: bool) -> None:
    """lm-eval echoes, generates one token, and reads `token_logprobs[ctxlen:-1]`: the end token needs its entry too."""
    score = TokenLogprob(-1.5, [(3, -1.0)])

    def script(message: Any) -> Any:
        yield Admitted(message.uid, 0.0, 0)
        yield Token(message.uid, 0, score, prompt_logprobs=[None, score, score], finish_reason="stop")

    service = make_service(generate=script)
    body = BASE | {"prompt": [[7, 8, 9]], "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0, "seed": 1234}
    if stream:
        objects = [event["choices"][0]["logprobs"] for event in service.stream(PATH, body)]
        logprobs = [value for part in objects if part for value in part["token_logprobs"]]
    else:
        logprobs = service.post(PATH, body).json()["choices"][0]["logprobs"]["token_logprobs"]
    assert logprobs == [None, -1.5, -1.5, -1.5]


def test_log_probabilities_are_the_same_number_in_both_places(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab")
    value = math.log(0.3)
    scores = [TokenLogprob(value, [(ids[0], value), (9, -3.0)]), TokenLogprob(-7.5, [(9, -0.1), (10, -3.0)])]
    logprobs = complete(make_service(generate=writes(ids, logprobs=scores)), logprobs=2)["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["a", "b"]
    assert logprobs["token_logprobs"] == [value, -7.5]
    assert logprobs["top_logprobs"][0]["a"] == value
    assert len(logprobs["top_logprobs"][0]) == 2
    assert len(logprobs["top_logprobs"][1]) == 3
    assert logprobs["text_offset"] == [0, 1]


def test_tokens_that_are_no_characters_keep_distinct_names(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    ids = [token_of(tokenizer, byte) for byte in "\U0001f642".encode()]
    scores = [TokenLogprob(-1.0, [])] * 4
    choice = complete(make_service(generate=writes(ids, logprobs=scores)), logprobs=0)["choices"][0]
    assert choice["text"] == "\U0001f642"
    assert choice["logprobs"]["tokens"] == ["bytes:\\xf0", "bytes:\\x9f", "bytes:\\x99", "bytes:\\x82"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 0, 0]


def test_tokens_can_be_named_by_id(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    scores = [TokenLogprob(-1.0, [(9, -0.5)])]
    service = make_service(generate=writes([40], logprobs=scores))
    logprobs = complete(service, logprobs=1, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["token_id:40"]
    assert sorted(logprobs["top_logprobs"][0]) == ["token_id:40", "token_id:9"]


def test_entries_end_with_the_text_a_stop_string_left(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("ab"), *tokenizer.encode("cd")]
    scores = [TokenLogprob(-float(i), []) for i in range(len(ids))]
    logprobs = complete(make_service(generate=writes(ids, logprobs=scores)), logprobs=0, stop="c")["choices"][0][
        "logprobs"
    ]
    assert logprobs["tokens"] == ["a", "b"]


def test_minus_infinity_is_a_number_json_can_say(make_service: ServiceMaker) -> None:
    service = make_service(generate=writes([40], logprobs=[TokenLogprob(-math.inf, [])]))
    assert complete(service, logprobs=0)["choices"][0]["logprobs"]["token_logprobs"] == [-9999.0]


def test_token_ids_are_returned_when_asked_for(service: Service, tokenizer: Tokenizer) -> None:
    choice = complete(service, return_token_ids=True)["choices"][0]
    assert choice["token_ids"] == tokenizer.encode("Hi!")
    assert choice["prompt_token_ids"] == tokenizer.encode("Hello")
    events = service.stream(PATH, BASE | {"return_token_ids": True})
    choices = [event["choices"][0] for event in events]
    assert [id_ for choice in choices for id_ in choice["token_ids"]] == tokenizer.encode("Hi!")
    assert [choice["prompt_token_ids"] for choice in choices if choice["prompt_token_ids"]] == [
        tokenizer.encode("Hello")
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"truncate_prompt_tokens": 2}, [8, 9]),
        ({"truncate_prompt_tokens": 2, "truncation_side": "right"}, [7, 8]),
        ({"truncate_prompt_tokens": 5}, [7, 8, 9]),
        ({"truncate_prompt_tokens": -1, "max_tokens": 126}, [8, 9]),
    ],
)
def test_prompts_are_truncated_on_request_only(service: Service, changes: dict[str, Any], expected: list[int]) -> None:
    complete(service, prompt=[7, 8, 9], **changes)
    assert service.generate.requests[0].prompt_ids == expected


def test_max_tokens_can_be_clamped_to_the_context(make_service: ServiceMaker) -> None:
    service = make_service(max_tokens_policy="clamp")
    assert sent_params(service, prompt=[7] * 100, max_tokens=1000).max_tokens == 28


def test_unknown_fields_are_listed_and_ignored(service: Service) -> None:
    response = service.post(PATH, BASE | {"colour": 1, "n\r\nx": 2, "user": "me"})
    assert response.headers["x-ignored-params"] == "colour, n%0D%0Ax"
    assert "x-ignored-params" not in service.post(PATH, BASE | {"user": "me"}).headers


def test_ignored_fields_are_logged_and_counted_under_no_name_of_the_clients(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    before = float(metrics.IGNORED_PARAMS.labels("other")._value.get())
    with caplog.at_level("INFO", "groundup.access"):
        service.post(PATH, BASE | {"colour": 1, "n\r\nx": 2})
    assert "ignored=colour,n%0D%0Ax" in caplog.messages[-1]
    assert float(metrics.IGNORED_PARAMS.labels("other")._value.get()) == before + 2


def test_client_can_name_its_request(service: Service) -> None:
    assert complete(service, request_id="mine")["id"] == "cmpl-mine"


def test_timings_are_in_a_header(service: Service) -> None:
    timing = service.post(PATH, BASE).headers["server-timing"]
    assert [part.split(";")[0] for part in timing.split(", ")] == ["queue", "prefill", "decode"]


def test_deadlines_travel_with_the_request_and_a_header_can_only_shorten_them(make_service: ServiceMaker) -> None:
    service = make_service(request_timeout_s=100, queue_timeout_s=50)
    for header in (None, "2000", "9999999"):
        service.post(PATH, BASE, headers={} if header is None else {"x-request-timeout-ms": header})
    default, short, long = service.generate.requests
    assert default.deadline_s - default.queue_deadline_s == pytest.approx(50)
    assert short.deadline_s == short.queue_deadline_s
    assert long.deadline_s - long.queue_deadline_s == pytest.approx(50)
    assert service.post(PATH, BASE, headers={"x-request-timeout-ms": "soon"}).status_code == 400


def test_default_model_answers_for_requests_without_one(make_service: ServiceMaker) -> None:
    service = make_service(default_model="tiny-base")
    assert service.post(PATH, {"prompt": "x"}).json()["model"] == "tiny-base"


def token_of(tokenizer: Tokenizer, byte: int) -> int:
    return next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == bytes([byte]))
