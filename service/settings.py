"""Everything `groundup serve` and `groundup bench` can be told: flags, environment, file, defaults.

It does not know what a checkpoint holds or how a limit is enforced; it only names the limits, once.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, CliPositionalArg, CliSuppress, NoDecode, SettingsConfigDict

DType = Literal["float32", "bfloat16"]
Quantization = Literal["int8"]
NumberType = Literal["float32", "bfloat16", "int8"]

_NAMED_KEY = re.compile(r"(?P<name>[A-Za-z0-9_.-]+):(?P<key>.+)")


def _as_number(value: object) -> object:
    """Read a number among which to choose: flags and environment have only its text."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class EngineSettings(BaseSettings):
    """What shapes the engine itself; shared by the server and the benchmark."""

    model_config = SettingsConfigDict(
        env_prefix="GROUNDUP_", frozen=True, extra="forbid", use_attribute_docstrings=True, cli_kebab_case=True
    )

    max_num_seqs: PositiveInt = 64
    """Most sequences that are decoded together in one step."""
    max_num_batched_tokens: PositiveInt = 1024
    """Most tokens one step computes, prefill and decode together; longer prompts are prefilled in pieces. Also most
    tokens of texts that are scored together."""
    prefill_chunk_tokens: PositiveInt = 256
    """Most prompt tokens one step computes while other sequences are being decoded, as many times more as newcomers
    outnumber these. Fewer let running streams wait less for newcomers; more bring a newcomer's first token sooner."""
    kv_cache_tokens: PositiveInt | None = None
    """Tokens the key/value cache of each model holds; absent: as many as `max_num_seqs` full contexts need, or as
    much as fits into the memory set aside for it."""
    page_size: PositiveInt | None = None
    """Tokens in one page of the key/value cache; absent: 16, or 256 for bfloat16 on a GPU. Sequences share
    whole pages."""
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """Where the models run: `cpu`, `cuda` or `cuda:N`."""
    cuda_graphs: bool = True
    """Whether decode steps on a GPU are captured and replayed as a whole: faster, for some memory and a slower start.
    Only where attention goes through page tables: in bfloat16, with pages of 256 tokens or a multiple."""
    compile: bool = False
    """Whether decode steps on a CPU are compiled, with the C++ compiler of the machine: a sixth (float32) to a half
    (int8) more tokens a second, for a start of a minute and a half, from the second time on of ten seconds."""
    num_threads: PositiveInt | None = None
    """Threads a worker computes with; absent: one for each CPU this process may use."""

    @model_validator(mode="after")
    def _compile_only_where_it_helps(self) -> Self:
        if self.compile and self.device != "cpu":
            raise ValueError(f"--compile is for --device cpu; on {self.device} decode steps are captured instead")
        return self


class KeyLimits(BaseModel):
    """What one API key may ask for; what is left out is as for all keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    requests_per_minute: PositiveInt | None = None
    """Most requests in a minute."""
    tokens_per_minute: PositiveInt | None = None
    """Most tokens in a minute, read and generated."""
    models: tuple[str, ...] | None = None
    """Served ids it may use."""


class ServiceSettings(EngineSettings):
    """Serve checkpoints over HTTP."""

    checkpoints: CliPositionalArg[tuple[Path, ...]] = Field(min_length=1)
    """Directories of checkpoints and of LoRA adapters; each becomes a served model named after its directory. Adapters
    share the weights of their base, which is one of the checkpoints."""
    dtype: DType = "float32"
    """Number type of weights and cache."""
    quantize: Quantization | None = None
    """Round the weights of linear layers to this type, on a CPU: `int8` takes a quarter of the memory and a third to
    a half of the time of float32. What it does to answers is in docs/benchmarks.md."""

    host: str = "127.0.0.1"
    """Network interface to listen on; `0.0.0.0` for all of them."""
    port: int = Field(8000, ge=0, le=65535)
    """TCP port; 0 picks a free one."""
    keep_alive_s: int = Field(75, ge=1)
    """How long an idle connection stays open. Shorter than a client's pool or a load balancer keeps it, and requests
    fail at random."""
    receive_timeout_s: PositiveFloat = 60.0
    """Longest time a client may take to send a request, body included; then its connection is closed."""
    max_head_bytes: PositiveInt = 64 * 1024
    """Largest request line and headers together."""
    max_body_bytes: PositiveInt = 8 * 1024 * 1024
    """Largest request body."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose browser pages may call this server; none by default."""

    api_keys: Annotated[CliSuppress[tuple[SecretStr, ...]], NoDecode] = ()
    """Accepted keys, `KEY` or `NAME:KEY`, separated by commas; none: everyone may call. Better set through
    GROUNDUP_API_KEYS or `api_keys_file` than as a flag, which other users of the machine can read."""
    api_keys_file: Path | None = None
    """File with one `KEY` or `NAME:KEY` on each line; `#` starts a comment line."""
    requests_per_minute: PositiveInt | None = None
    """Most requests of one key in a minute, or of everybody where no key is asked for."""
    tokens_per_minute: PositiveInt | None = None
    """The same for tokens, read and generated."""
    key_limits: dict[str, KeyLimits] = Field(default_factory=dict)
    """Other limits for some keys, by name: a table in a file, or JSON."""
    metrics_require_key: bool = False
    """Whether /metrics wants a key too."""
    metrics_vllm_compat: bool = True
    """Whether /metrics has vLLM's names too, for dashboards made for it."""

    admin_key: CliSuppress[SecretStr | None] = None
    """Key for the admin routes, which add, replace and remove models; none, and there are no such routes. Better set
    through GROUNDUP_ADMIN_KEY or `admin_key_file`."""
    admin_key_file: Path | None = None
    """File that holds this key and nothing else."""
    admin_model_roots: tuple[Path, ...] = ()
    """Directories below which models may be added; none: those that the checkpoints lie in."""

    default_model: str | None = None
    """Served id for requests that name no model."""
    aliases: dict[str, str] = {}
    """Further names of served models: `--aliases gpt-4o=my-chat`. They are listed beside them, with that `root`."""
    max_n: int = Field(16, ge=1, le=128)
    """Largest `n`, the choices for one prompt."""
    max_prompts: PositiveInt = 128
    """Most prompts in one completions request."""
    max_logprobs: int = Field(5, ge=0, le=20)
    """Most alternatives to report for each token of a completion; chat always allows 20."""
    max_tokens_policy: Literal["reject", "clamp"] = "reject"
    """What to do when prompt and `max_tokens` together exceed the context of the model."""
    tools_auto: Literal["error", "ignore"] = "error"
    """What to do with `tools` that the model is free not to use, which it was not taught: refuse them, or answer in
    text and list them in the `x-ignored-params` header."""
    strict_params: bool = False
    """Refuse request fields that we do not know, instead of listing them in the `x-ignored-params` header."""

    stream_interval: PositiveInt = 1
    """Tokens in each chunk of a stream; the first chunk has one. More make fewer chunks, which come less often."""

    max_waiting_requests: PositiveInt = 512
    """Most sequences that wait for a place in the batch; beyond, requests are refused."""
    max_waiting_tokens: PositiveInt = 1_000_000
    """Most prompt tokens of waiting sequences; beyond, requests are refused."""
    overload_status: Annotated[Literal[503, 429], BeforeValidator(_as_number)] = 503
    """HTTP status of a refusal because of load."""
    queue_timeout_s: PositiveFloat = 60.0
    """Longest wait for a place in the batch."""
    request_timeout_s: PositiveFloat = 600.0
    """Longest life of a request; clients may shorten it with `x-request-timeout-ms`."""
    sse_keepalive_s: NonNegativeFloat = 15.0
    """Silence after which a stream sends a comment to keep proxies from closing it; 0: never."""

    max_embedding_items: PositiveInt = 2048
    """Most texts in one embeddings request."""
    max_embedding_tokens: PositiveInt = 300_000
    """Most tokens of all of them together."""
    embeddings_accept_token_ids: bool = True
    """Whether texts to embed may come as token ids. Some clients send ids of another vocabulary, whose embeddings mean
    nothing."""

    max_classify_items: PositiveInt = 256
    """Most texts in one classify request."""
    classify_batch_size: PositiveInt = 32
    """Most texts scored together."""
    classify_batch_wait_s: NonNegativeFloat = 0.002
    """How long an incomplete batch waits for company."""

    drain_delay_s: NonNegativeFloat = 5.0
    """After SIGTERM: time for load balancers to see that we are not ready, while requests are still served."""
    drain_timeout_s: NonNegativeFloat = 30.0
    """After that: time for running requests to finish, while new ones are refused."""
    liveness_timeout_s: PositiveFloat = 60.0
    """Age of an engine's heartbeat at which /livez asks for a restart."""
    engine_hang_s: PositiveFloat = 30.0
    """Age of a worker's heartbeat at which it is killed and restarted."""
    max_restarts: int = Field(5, ge=0)
    """Deaths of one worker without an hour of good work between them that are answered by a restart; one more ends
    the service."""

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return [key.strip() for item in value for key in item.split(",") if key.strip()]
        return value

    @model_validator(mode="after")
    def _check_types_together(self) -> Self:
        if self.quantize is not None and (self.device != "cpu" or self.dtype != "float32"):
            raise ValueError(
                f"--quantize {self.quantize} is for --device cpu and --dtype float32, "
                f"not for {self.device} and {self.dtype}"
            )
        return self

    @model_validator(mode="after")
    def _check_limits_together(self) -> Self:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"--max-num-batched-tokens ({self.max_num_batched_tokens}) must be at least "
                f"--max-num-seqs ({self.max_num_seqs}): every running sequence needs one token in each step"
            )
        if self.engine_hang_s > self.liveness_timeout_s:
            raise ValueError(
                f"--engine-hang-s ({self.engine_hang_s:g}) must not exceed --liveness-timeout-s "
                f"({self.liveness_timeout_s:g}): a hung worker is restarted before the whole service is"
            )
        if self.queue_timeout_s > self.request_timeout_s:
            raise ValueError(
                f"--queue-timeout-s ({self.queue_timeout_s:g}) must not exceed --request-timeout-s "
                f"({self.request_timeout_s:g})"
            )
        unknown = self.key_limits.keys() - self._named_keys().keys()
        if unknown:
            raise ValueError(f"--key-limits: no API key is named {', '.join(map(repr, sorted(unknown)))}")
        self._admin_key()
        return self

    @property
    def api_key_hashes(self) -> dict[str, bytes]:
        """Name to SHA-256 digest of every accepted key; empty when no key is asked for."""
        return {name: hashlib.sha256(key.encode()).digest() for name, key in self._named_keys().items()}

    @property
    def admin_key_hashes(self) -> dict[str, bytes]:
        """The same for the admin key; empty when there are no admin routes."""
        key = self._admin_key()
        return {} if key is None else {"admin": hashlib.sha256(key.encode()).digest()}

    @property
    def model_roots(self) -> tuple[Path, ...]:
        """Directories below which models may be added."""
        return self.admin_model_roots or tuple({path.resolve().parent for path in self.checkpoints})

    def _admin_key(self) -> str | None:
        if self.admin_key is not None and self.admin_key.get_secret_value():
            return self.admin_key.get_secret_value()
        if self.admin_key_file is None:
            return None
        keys = _read_keys(self.admin_key_file, "--admin-key-file")
        if len(keys) != 1:
            raise ValueError(f"--admin-key-file: {self.admin_key_file} holds {len(keys)} keys; it must hold one")
        return keys[0]

    def limits_of(self, name: str) -> KeyLimits:
        """Return the limits of a key."""
        limits = self.key_limits.get(name, KeyLimits())
        return KeyLimits(
            requests_per_minute=limits.requests_per_minute or self.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute or self.tokens_per_minute,
            models=limits.models,
        )

    def _named_keys(self) -> dict[str, str]:
        entries = [secret.get_secret_value() for secret in self.api_keys]
        if self.api_keys_file is not None:
            from_file = _read_keys(self.api_keys_file, "--api-keys-file")
            if not from_file:
                raise ValueError(f"--api-keys-file: {self.api_keys_file} holds no key")
            entries += from_file
        named: dict[str, str] = {}
        for number, entry in enumerate(entries, start=1):
            match = _NAMED_KEY.fullmatch(entry)
            name, key = (match["name"], match["key"]) if match else (f"key-{number}", entry)
            if name in named:
                raise ValueError(f"--api-keys: two keys are named {name!r}")
            named[name] = key
        return named


class BenchSettings(EngineSettings):
    """Measure the engine beside transformers and other peers on the same random weights, alone and over HTTP."""

    preset: Literal["gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl", "tiny-gpt2"] = "gpt2-small"
    """Shape of the model."""
    checkpoint: Path | None = None
    """Directory of the random weights, written if it is not there; absent: one for the time of the run."""
    types: tuple[NumberType, ...] = ("float32", "int8", "bfloat16")
    """What our weights are: `float32`, `bfloat16`, or `int8` on a CPU."""
    concurrency: tuple[PositiveInt, ...] = (1, 8, 32)
    """Numbers of requests at once."""
    prompt_tokens: PositiveInt = 64
    """Length of each prompt."""
    new_tokens: int = Field(48, ge=2)
    """Tokens to generate for each."""
    repeats: PositiveInt = 3
    """Runs of each; they are interleaved, and their median counts."""
    peers: bool = True
    """Whether to run the peers that are at hand, and not transformers alone."""
    openvino: Path | None = None
    """The random weights as OpenVINO GenAI reads them; without it, the report says how to make it."""
    llama_server: Path | None = None
    """The program `llama-server` of llama.cpp, for a comparison over HTTP."""
    http: bool = True
    """Whether to measure the most concurrent case through a server too."""
    latency: bool = False
    """Whether to measure what streams wait while long prompts arrive, and what a known beginning of a prompt saves,
    instead of comparing."""
    curves: bool = False
    """Whether to measure speed over lengths of context and numbers of requests, instead of comparing."""
    plots: Path | None = None
    """Directory for pictures of the curves; absent: tables only."""


def _read_keys(path: Path, flag: str) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{flag}: cannot read {path}: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
