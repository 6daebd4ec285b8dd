"""What we take for granted of LitServe's insides. A new release must be read before the pin moves."""

import importlib.metadata
import inspect

import litserve
from litserve.loops.loops import inference_worker
from litserve.server import LitServer, response_queue_to_buffer

PINNED = "0.2.19"


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_release_is_the_one_whose_insides_we_know() -> None:
    assert importlib.metadata.version("litserve") == PINNED
    requirements = importlib.metadata.requires("groundup") or []
    assert f"litserve=={PINNED}" in requirements


def test_the_worker_entry_hands_its_queue_and_transport_to_the_loop() -> None:
    assert parameters(inference_worker) == [
        *("lit_api", "device", "worker_id", "request_queue", "transport"),
        *("workers_setup_status", "callback_runner", "restart_workers"),
    ]
    source = inspect.getsource(inference_worker)
    assert source.index("lit_api.setup(device)") < source.index("loop(\n")


def test_the_launches_take_what_we_pass() -> None:
    assert parameters(LitServer.launch_inference_worker) == ["self", "lit_api"]
    assert parameters(LitServer._start_server) == [
        *("self", "port", "num_uvicorn_servers", "log_level", "sockets", "uvicorn_worker_type", "kwargs"),
    ]
    source = inspect.getsource(LitServer.launch_inference_worker)
    assert "self._transport" in source
    assert "self._get_request_queue(lit_api.api_path)" in source


def test_the_http_process_awaits_the_transport_with_its_own_index() -> None:
    assert "transport.areceive(consumer_id)" in inspect.getsource(response_queue_to_buffer)
    assert "self._transport" in inspect.getsource(LitServer.lifespan)
    assert "FastAPI(lifespan=self.lifespan" in inspect.getsource(LitServer.__init__)


def test_importing_it_does_not_import_torch() -> None:
    assert "import torch" not in inspect.getsource(litserve)
