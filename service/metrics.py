"""Every metric, defined once. Each process writes its own numbers; /metrics adds them up.

Names with `vllm:` are vLLM's, with its labels and buckets, so that dashboards made for it work; `groundup_` names are
ours. The label `model_name` is a served id, never a string a client sent.

prometheus_client's multiprocess mode keeps one memory-mapped file for each process in a directory that must be named
before the library is imported. Importing this module is enough: the first process makes it, its children inherit it.
"""

# ruff: noqa: E402
import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

if _DIRECTORY not in os.environ:
    os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix="groundup-metrics-")
    atexit.register(shutil.rmtree, os.environ[_DIRECTORY], ignore_errors=True)

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics

ENGINE = "0"
"""Value of the label `engine`: there is one engine for each model."""

_MODEL = ("model_name", "engine")

_COUNT_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
_BATCH_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_CHOICE_BUCKETS = (1, 2, 5, 10, 20)
_TTFT_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
_TOKEN_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80),
)
_REQUEST_BUCKETS = (
    *(0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30),
    *(40, 50, 60, 120, 240, 480, 960, 1920, 7680),
)
_FINE_BUCKETS = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60),
)


class Histograms:
    """One quantity under several names, or in several resolutions, always observed together."""

    def __init__(self, *histograms: Histogram) -> None:
        self._histograms = histograms
        self._of_model: dict[str, list[Histogram]] = {}

    def observe(self, model_name: str, value: float) -> None:
        """Record one value for a served model."""
        if model_name not in self._of_model:
            self._of_model[model_name] = [histogram.labels(model_name, ENGINE) for histogram in self._histograms]
        for histogram in self._of_model[model_name]:
            histogram.observe(value)


def _histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(name, text, _MODEL, buckets=buckets)


# Written by the workers.

REQUESTS_RUNNING = Gauge(
    "vllm:num_requests_running", "Sequences in the running batch.", _MODEL, multiprocess_mode="livesum"
)
REQUESTS_WAITING = Gauge(
    "vllm:num_requests_waiting", "Sequences that wait for a place in the batch.", _MODEL, multiprocess_mode="livesum"
)
KV_CACHE_USAGE = Gauge(
    "vllm:kv_cache_usage_perc", "Share of the key/value cache in use, 0 to 1.", _MODEL, multiprocess_mode="livemax"
)
GPU_CACHE_USAGE = Gauge(
    "vllm:gpu_cache_usage_perc", "Old name of vllm:kv_cache_usage_perc.", _MODEL, multiprocess_mode="livemax"
)
WAITING_BY_REASON = Gauge(
    "vllm:num_requests_waiting_by_reason",
    "Sequences that wait, by what they wait for.",
    [*_MODEL, "reason"],
    multiprocess_mode="livesum",
)
CACHE_CONFIG = Gauge(
    "vllm:cache_config_info",
    "1 for each key/value cache; the labels tell its shape.",
    [*_MODEL, "block_size", "num_gpu_blocks", "cache_dtype"],
    multiprocess_mode="livemax",
)
PREEMPTIONS = Counter("vllm:num_preemptions", "Sequences put back into the queue for want of cache pages.", _MODEL)
PROMPT_TOKENS = Counter("vllm:prompt_tokens", "Prompt tokens of admitted sequences.", _MODEL)
PROMPT_TOKENS_CACHED = Counter("vllm:prompt_tokens_cached", "Prompt tokens that the prefix cache had already.", _MODEL)
PREFIX_CACHE_QUERIES = Counter("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", _MODEL)
PREFIX_CACHE_HITS = Counter("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.", _MODEL)
GENERATION_TOKENS = Counter("vllm:generation_tokens", "Generated tokens.", _MODEL)
BATCH_SIZE = Histogram(
    "groundup_batch_size", "Sequences in an engine step, or texts scored together.", _MODEL, buckets=_BATCH_BUCKETS
)
ITERATION_TOKENS = Histogram(
    "vllm:iteration_tokens_total", "Tokens computed in an engine step.", _MODEL, buckets=_BATCH_BUCKETS
)
STEP_SECONDS = Histogram("groundup_step_seconds", "Duration of an engine step.", _MODEL, buckets=_FINE_BUCKETS)
COMPILE_SECONDS = Histogram(
    "groundup_structured_output_compile_seconds",
    "Time to compile what an answer must look like.",
    _MODEL,
    buckets=_FINE_BUCKETS,
)
QUEUE_SECONDS = _histogram("vllm:request_queue_time_seconds", "Wait for a place in the batch.", _REQUEST_BUCKETS)
PREFILL_SECONDS = _histogram("vllm:request_prefill_time_seconds", "Admission to first token.", _REQUEST_BUCKETS)
DECODE_SECONDS = _histogram("vllm:request_decode_time_seconds", "First token to last.", _REQUEST_BUCKETS)
INFERENCE_SECONDS = _histogram("vllm:request_inference_time_seconds", "Admission to last token.", _REQUEST_BUCKETS)
PREFILL_COMPUTED_TOKENS = _histogram(
    "vllm:request_prefill_kv_computed_tokens", "Prompt tokens that no cache had.", _COUNT_BUCKETS
)
EMBEDDING_ITEMS = Counter("groundup_embedding_items", "Texts embedded.", _MODEL)
CLASSIFY_ITEMS = Counter("groundup_classify_items", "Texts classified.", _MODEL)
MODEL_LOAD_SECONDS = Gauge(
    "groundup_model_load_seconds",
    "How long the weights took to load; 0 of a model that is gone.",
    ["model_name"],
    multiprocess_mode="livemax",
)

# Written by the main process.

BUILD_INFO = Gauge("groundup_build_info", "1; the labels tell.", ["version"], multiprocess_mode="livemax")
MODEL_INFO = Gauge(
    "groundup_model_info",
    "1 for each served model; the labels tell.",
    ["model_name", "revision", "dtype", "quantization", "capabilities"],
    multiprocess_mode="livemax",
)
WORKER_RESTARTS = Counter("groundup_worker_restarts", "Workers started again after their death.", ["worker"])
HEARTBEAT_AGE = Gauge(
    "groundup_engine_heartbeat_age_seconds",
    "Age of a worker's last sign of life, taken twice a second.",
    ["worker"],
    multiprocess_mode="livemostrecent",
)
DRAINING = Gauge("groundup_draining", "1 once the service is shutting down.", multiprocess_mode="livemax")

# Written by the HTTP process.

HTTP_REQUESTS = Counter("http_requests", "Answered HTTP requests.", ["method", "status", "handler"])
HTTP_SECONDS = Histogram(
    "http_request_duration_seconds", "From request to the end of the answer.", ["method", "handler"]
)
REQUEST_SUCCESS = Counter("vllm:request_success", "Finished requests by reason.", [*_MODEL, "finished_reason"])
ADMISSION_REJECTIONS = Counter("vllm:admission_rejections", "Refused requests.", ["model_name", "reason"])
TTFT = Histograms(
    _histogram("vllm:time_to_first_token_seconds", "Request to first token.", _TTFT_BUCKETS),
    _histogram("groundup_time_to_first_token_seconds", "Request to first token, finer.", _FINE_BUCKETS),
)
ITL = Histograms(
    _histogram("vllm:inter_token_latency_seconds", "Time between tokens of a sequence.", _TOKEN_BUCKETS),
    _histogram("vllm:time_per_output_token_seconds", "Old name of the inter-token latency.", _TOKEN_BUCKETS),
    _histogram("groundup_inter_token_latency_seconds", "Time between tokens of a sequence, finer.", _FINE_BUCKETS),
)
TIME_PER_OUTPUT_TOKEN = Histograms(
    _histogram("vllm:request_time_per_output_token_seconds", "Mean over a request's tokens.", _TOKEN_BUCKETS),
)
E2E = Histograms(
    _histogram("vllm:e2e_request_latency_seconds", "Request to last token.", _REQUEST_BUCKETS),
    _histogram("groundup_e2e_request_latency_seconds", "Request to last token, finer.", _FINE_BUCKETS),
)
REQUEST_PROMPT_TOKENS = _histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", _COUNT_BUCKETS)
REQUEST_GENERATION_TOKENS = _histogram(
    "vllm:request_generation_tokens", "Generated tokens of a request.", _COUNT_BUCKETS
)
REQUEST_MAX_GENERATION_TOKENS = _histogram(
    "vllm:request_max_num_generation_tokens", "Generated tokens of a request's longest choice.", _COUNT_BUCKETS
)
STREAM_CHUNK_LAG = Histograms(
    _histogram(
        "groundup_stream_chunk_lag_seconds", "A token's arrival from the worker to its chunk's handover.", _FINE_BUCKETS
    )
)
REQUEST_PARAMS_N = _histogram("vllm:request_params_n", "`n` of a request.", _CHOICE_BUCKETS)
REQUEST_PARAMS_MAX_TOKENS = _histogram("vllm:request_params_max_tokens", "`max_tokens` of a request.", _COUNT_BUCKETS)
CLIENT_DISCONNECTS = Counter("groundup_client_disconnects", "Clients that left before the end.", ["phase"])
ERRORS = Counter("groundup_errors", "Error answers.", ["endpoint", "code"])
IGNORED_PARAMS = Counter("groundup_ignored_params", "Request fields without effect: by name where known.", ["param"])


OPENMETRICS_VERSION = "1.0.0"


class _Chosen:
    """Every process's numbers, with or without those under vLLM's names."""

    def __init__(self, *, vllm_names: bool) -> None:
        self._all = multiprocess.MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        self._vllm_names = vllm_names

    def collect(self) -> Iterable[Metric]:
        metrics: Iterable[Metric] = self._all.collect()  # type: ignore[no-untyped-call]
        return [metric for metric in metrics if self._vllm_names or not metric.name.startswith("vllm:")]


def render(accept: str | None = None, *, vllm_names: bool = True) -> tuple[bytes, str]:
    """Return the page and its content type: Prometheus' text format, or OpenMetrics where `accept` asks for it."""
    registry = CollectorRegistry()
    registry.register(_Chosen(vllm_names=vllm_names))
    if "application/openmetrics-text" in (accept or ""):
        # Our names need no escaping, and the library's default would make an underscore of the colon in `vllm:`.
        page = openmetrics.generate_latest(registry, openmetrics.ALLOWUTF8, OPENMETRICS_VERSION)  # type: ignore[no-untyped-call]
        return page, f"application/openmetrics-text; version={OPENMETRICS_VERSION}; charset=utf-8"
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def forget_process(pid: int) -> None:
    """Drop the gauges of a dead process; what it counted stays counted."""
    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
