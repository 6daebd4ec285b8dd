"""The metrics page: both formats, vLLM's names, and gauges that die with their process."""

import subprocess
import sys

from service import metrics

WRITER = """
from service import metrics
metrics.REQUESTS_RUNNING.labels("m", metrics.ENGINE).set(3)
metrics.GENERATION_TOKENS.labels("m", metrics.ENGINE).inc(5)
"""


def test_the_page_speaks_the_format_that_is_asked_for() -> None:
    metrics.GENERATION_TOKENS.labels("m", metrics.ENGINE).inc(0)
    plain, plain_type = metrics.render("*/*")
    open_page, open_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert plain_type == "text/plain; version=0.0.4; charset=utf-8"
    assert open_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    for page in (plain, open_page):
        assert b"\nvllm:generation_tokens_total{" in page


def test_one_observation_counts_under_every_name_of_a_quantity() -> None:
    metrics.ITL.observe("twins", 0.003)
    page = metrics.render()[0].decode()
    for name in (
        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
        "groundup_inter_token_latency_seconds",
    ):
        assert f'{name}_count{{engine="0",model_name="twins"}} 1.0' in page


def test_a_dead_process_takes_its_gauges_along_but_not_its_counters() -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER]) as writer:
        assert writer.wait(60) == 0
    gauge = 'vllm:num_requests_running{engine="0",model_name="m"} 3.0'
    counter = 'vllm:generation_tokens_total{engine="0",model_name="m"} 5.0'
    page = metrics.render()[0].decode()
    assert gauge in page
    assert counter in page
    metrics.forget_process(writer.pid)
    page = metrics.render()[0].decode()
    assert gauge not in page
    assert counter in page
