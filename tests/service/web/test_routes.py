"""What surrounds the endpoints: models, tokenizer, probes, request ids, cross-origin calls, the access log."""

import asyncio
import json
import logging
import time
from collections.abc import Iterable
from typing import Any

import httpx
import prometheus_client
import pytest

from service.host.messages import Admitted, Drain, Event, Failed, Generate, WorkerDown, WorkerUp
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import Service


def test_models_are_listed_and_found(service: Service) -> None:
    listed = service.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["tiny-base", "tiny-chat", "tiny-spam"]
    for card in listed["data"]:
        assert service.get(f"/v1/models/{card['id']}").json() == card
        assert card["root"] == card["id"]
        assert card["max_model_len"] == 128
        assert (card["object"], card["parent"], card["quantization"]) == ("model", None, None)
        assert isinstance(card["created"], int)
    assert [card["capabilities"] for card in listed["data"]] == [
        ["completions", "embeddings"],
        ["chat", "completions", "embeddings"],
        ["classify"],
    ]
    assert listed["data"][2]["labels"] == ["ham", "spam"]


def test_tokenize_parses_control_tokens_and_detokenize_gives_the_text_back(service: Service) -> None:
    text = "Hello<|endoftext|> \U0001f642"
    tokens = service.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    assert tokens["max_model_len"] == 128
    assert "<|endoftext|>" in tokens["token_strs"]
    back = service.post("/detokenize", {"tokens": tokens["tokens"]}).json()
    assert back == {"prompt": text, "content": text}
    assert service.post("/tokenize", {"content": text}).json()["tokens"] == tokens["tokens"]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/tokenize", {"prompt": " " * 1_000_000}), ("/detokenize", {"tokens": [300] * 500_000})],
    ids=["tokenize", "detokenize"],
)
def test_a_large_text_is_tokenized_beside_the_event_loop(service: Service, path: str, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()

    async def share_of_the_loop(client: httpx.AsyncClient) -> float:
        """Return how much of the request's CPU time the event loop's own thread spent."""
        loop_s, all_s = time.thread_time(), time.process_time()
        assert (await client.post(path, content=content)).status_code == 200
        return (time.thread_time() - loop_s) / (time.process_time() - all_s)

    assert service.run(share_of_the_loop) < 0.3


def test_end_token_is_exactly_one_token(service: Service) -> None:
    info = service.get("/tokenizer_info").json()
    tokens = service.post("/tokenize", {"prompt": info["eos_token"]}).json()["tokens"]
    assert len(tokens) == 1


def test_conversations_are_tokenized_as_chat_reads_them(service: Service) -> None:
    body = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}]}
    service.post("/v1/chat/completions", body)
    tokens = service.post("/tokenize", body).json()["tokens"]
    assert tokens == service.generate.requests[0].prompt_ids
    shorter = service.post("/tokenize", body | {"add_generation_prompt": False}).json()["tokens"]
    assert shorter == tokens[:-1]


def test_tokenizer_describes_itself(service: Service) -> None:
    base = service.get("/tokenizer_info").json()
    assert base["eos_token"] == "<|endoftext|>"
    assert (base["bos_token"], base["chat_template"], base["vocab_size"]) == (None, None, 384)
    chat = service.get("/tokenizer_info", params={"model": "tiny-chat"}).json()
    assert "add_generation_prompt" in chat["chat_template"]
    assert service.get("/tokenizer_info", params={"model": "nope"}).status_code == 404


PROBES = ("/readyz", "/health", "/v1/health")


def status(service: Service, path: str) -> tuple[int, str]:
    response = service.get(path)
    return response.status_code, response.json()["status"]


def test_probes_say_ok_when_the_workers_are_up(service: Service) -> None:
    assert {status(service, path) for path in (*PROBES, "/livez")} == {(200, "ok")}
    assert service.request("HEAD", "/health").status_code == 200


def test_loading_is_not_ready_but_alive(make_service: ServiceMaker) -> None:
    service = make_service(is_up=False)
    names = tuple(model.version for model in service.models if model.worker == "generate")
    service.frontend.on_message(WorkerUp("generate", 1, names))
    assert {status(service, path) for path in PROBES} == {(503, "loading")}
    assert status(service, "/livez") == (200, "ok")


def test_a_worker_that_comes_back_makes_the_service_ready_again(service: Service) -> None:
    service.frontend.on_message(WorkerDown("classify", 1))
    assert status(service, "/readyz") == (503, "loading")
    assert service.classify.num_resets == 1

    async def come_back(client: httpx.AsyncClient) -> None:
        service.frontend.on_message(WorkerUp("classify", 2))
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)

    service.run(come_back)
    assert status(service, "/readyz") == (200, "ok")


def test_a_death_that_is_told_after_the_birth_of_the_successor_changes_nothing(service: Service) -> None:
    service.frontend.on_message(WorkerUp("classify", 2, ("tiny-spam",)))
    assert service.classify.num_resets == 1
    service.frontend.on_message(WorkerDown("classify", 1))
    assert service.classify.num_resets == 1
    assert status(service, "/readyz") == (200, "ok")


def test_draining_is_not_ready_but_alive(service: Service) -> None:
    service.frontend.on_message(Drain("unready"))
    assert {status(service, path) for path in PROBES} == {(503, "draining")}
    assert status(service, "/livez") == (200, "ok")


def test_an_engine_without_heartbeat_is_neither_ready_nor_alive(service: Service) -> None:
    service.generate.heartbeat_age_s = 61.0
    assert {status(service, path) for path in (*PROBES, "/livez")} == {(503, "engine_stalled")}


def test_metrics_speak_both_formats(service: Service) -> None:
    service.post("/v1/completions", {"model": "tiny-base", "prompt": "x"})
    plain = service.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert 'http_requests_total{handler="/v1/completions",method="POST",status="200"}' in plain.text
    assert 'vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny-base"}' in plain.text
    openmetrics = service.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
    assert service.get("/metrics/").status_code == 200


METRICS = (
    *("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason"),
    *("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "vllm:cache_config_info"),
    *("vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:num_preemptions"),
    *("vllm:prompt_tokens", "vllm:generation_tokens", "vllm:prompt_tokens_cached"),
    *("vllm:request_success", "vllm:admission_rejections", "vllm:iteration_tokens_total"),
    *("vllm:request_prompt_tokens", "vllm:request_generation_tokens", "vllm:request_max_num_generation_tokens"),
    *("vllm:request_params_max_tokens", "vllm:request_prefill_kv_computed_tokens", "vllm:request_params_n"),
    *("vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"),
    *("vllm:request_time_per_output_token_seconds", "vllm:time_per_output_token_seconds"),
    *("vllm:e2e_request_latency_seconds", "vllm:request_queue_time_seconds", "vllm:request_inference_time_seconds"),
    *("vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds"),
    *("http_requests", "http_request_duration_seconds", "groundup_build_info", "groundup_model_info"),
    *("groundup_model_load_seconds", "groundup_batch_size", "groundup_client_disconnects", "groundup_errors"),
    *("groundup_ignored_params", "groundup_classify_items", "groundup_embedding_items"),
    *("groundup_stream_chunk_lag_seconds", "groundup_engine_heartbeat_age_seconds", "groundup_draining"),
    *("groundup_time_to_first_token_seconds", "groundup_inter_token_latency_seconds"),
    *("groundup_e2e_request_latency_seconds", "groundup_structured_output_compile_seconds"),
)
"""Appendix A of the API, as prometheus_client names them; what only a loaded model shows has its test elsewhere."""


def test_every_metric_of_the_api_exists() -> None:
    defined = {metric.name for metric in prometheus_client.REGISTRY.collect()}
    assert set(METRICS) <= defined


def test_metrics_can_do_without_the_names_of_others(make_service: ServiceMaker) -> None:
    service = make_service(metrics_vllm_compat=False)
    service.post("/v1/completions", {"model": "tiny-base", "prompt": "x", "stream": True})
    page = service.get("/metrics").text
    assert "vllm:" not in page
    assert "groundup_stream_chunk_lag_seconds_bucket" in page


@pytest.mark.parametrize("path", ["/v1/models", "/nope", "/health"])
def test_every_answer_has_the_common_headers(service: Service, path: str) -> None:
    headers = service.get(path).headers
    assert headers["x-request-id"].startswith("req_")
    assert len(headers["x-request-id"]) == 4 + 32
    assert headers["openai-version"] == "2020-10-01"
    assert int(headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize(
    ("sent", "is_kept"), [("abc.DEF:1-2_3", True), ("a b", False), ("", False), ("x" * 129, False)]
)
def test_clients_own_request_id_is_kept_if_it_is_harmless(service: Service, sent: str, is_kept: bool) -> None:
    assert (service.get("/health", headers={"x-request-id": sent}).headers["x-request-id"] == sent) is is_kept


def test_trailing_slashes_do_not_matter_and_never_redirect(service: Service) -> None:
    assert service.get("/v1/models/").status_code == 200
    assert service.get("/v1/models/tiny-base/").json()["id"] == "tiny-base"
    body = {"model": "tiny-base", "prompt": "x"}
    assert service.post("/v1/completions/", body).status_code == 200


ORIGIN = {"origin": "https://page.example"}
PREFLIGHT = ORIGIN | {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-a"}


def test_other_origins_get_nothing_by_default(service: Service) -> None:
    assert "access-control-allow-origin" not in service.get("/v1/models", headers=ORIGIN).headers
    assert service.request("OPTIONS", "/v1/models", headers=PREFLIGHT).status_code == 405


def test_listed_origins_may_call_and_preflight_needs_no_key(make_service: ServiceMaker) -> None:
    limits = {"requests_per_minute": 9, "tokens_per_minute": 99}
    service = make_service(cors_origins=("https://page.example",), api_keys=["sesame"], **limits)
    preflight = service.request("OPTIONS", "/v1/completions", headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://page.example"
    answer = service.get("/v1/models", headers=ORIGIN | {"authorization": "Bearer sesame"})
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {name for name in answer.headers if name.startswith("x-ratelimit-")} < set(exposed)
    assert {"x-request-id", "retry-after"} < set(exposed)
    stranger = service.get("/v1/models", headers={"origin": "https://evil.example", "authorization": "Bearer sesame"})
    assert "access-control-allow-origin" not in stranger.headers


def test_a_preflight_that_is_refused_gets_what_options_get(make_service: ServiceMaker) -> None:
    service = make_service(cors_origins=("https://page.example",))
    for changes, is_named in (
        ({"origin": "https://evil.example"}, False),
        ({"access-control-request-method": "PUT"}, True),
    ):
        refused = service.request("OPTIONS", "/v1/completions", headers=PREFLIGHT | changes)
        assert (refused.status_code, refused.json()["error"]["code"]) == (405, "method_not_supported")
        assert ("access-control-allow-origin" in refused.headers) is is_named


def test_pages_may_read_of_faults_of_ours(make_service: ServiceMaker) -> None:
    def broken(_: Generate) -> Iterable[Event]:
        raise RuntimeError

    service = make_service(generate=broken, cors_origins=("https://page.example",))
    body = {"model": "tiny-base", "prompt": "x"}
    for origin, named in ((ORIGIN["origin"], ORIGIN["origin"]), ("https://evil.example", None)):
        response = service.post("/v1/completions", body, headers={"origin": origin})
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
        assert response.headers.get("access-control-allow-origin") == named
        assert response.headers["x-request-id"] in response.json()["error"]["message"]


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "groundup.access"]


def test_each_request_leaves_one_line_without_its_text(
    make_service: ServiceMaker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = make_service(api_keys=["alice:sesame"])
    body: dict[str, Any] = {"model": "tiny-chat", "messages": [{"role": "user", "content": "my secret"}]}
    headers = {"authorization": "Bearer sesame", "x-request-id": "r1"}
    service.post("/v1/chat/", body | {"stream": True}, headers=headers)
    service.get("/health")
    lines = logged(caplog)
    assert len(lines) == 1
    assert lines[0].startswith("POST /v1/chat/completions 200 ")
    for fact in (" id=r1", " key=alice", " model=tiny-chat", " prompt_tokens=", " completion_tokens=", " ttft_ms="):
        assert fact in lines[0]
    assert "secret" not in lines[0]
    assert "sesame" not in lines[0]


def test_errors_are_logged_with_their_code(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service.post("/v1/completions", {"model": "nope", "prompt": "x"})
    assert " 404 " in logged(caplog)[0]
    assert " error=model_not_found" in logged(caplog)[0]


def test_streams_that_fail_are_logged_with_their_code(
    make_service: ServiceMaker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = make_service(generate=lambda message: [Admitted(message.uid, 0.0, 0), Failed(message.uid, "timeout")])
    service.post("/v1/completions", {"model": "tiny-base", "prompt": "x", "stream": True})
    assert " 200 " in logged(caplog)[0]
    assert " error=timeout" in logged(caplog)[0]
