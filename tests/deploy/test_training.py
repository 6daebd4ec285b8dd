"""The files in deploy/training/ start what this version of the program understands, and end it without losing work."""

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from groundup import parse
from training.config.pretrain import PretrainConfig

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/training"
SCRIPT = FOLDER / "groundup.sbatch"


@pytest.fixture
def job() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "trainjob.yaml").read_text()))


def parse_pretrain(words: list[str], monkeypatch: pytest.MonkeyPatch) -> PretrainConfig:
    """Parse what follows `-m groundup pretrain`, in the root of the project."""
    start = words.index("groundup")
    assert words[start - 1 : start + 2] == ["-m", "groundup", "pretrain"]
    monkeypatch.chdir(ROOT)
    return parse(PretrainConfig, words[start + 2 :], prog="groundup pretrain")


def torchrun_accepts(words: list[str]) -> bool:
    from torch.distributed.run import get_args_parser

    launcher = words[words.index("torchrun") + 1 : words.index("-m")]
    return bool(get_args_parser().parse_args([*launcher, "program"]).training_script == "program")


def test_the_job_has_the_fields_of_kubeflow_trainer_2_2(job: dict[str, Any]) -> None:
    # pkg/apis/trainer/v1alpha1/trainjob_types.go of kubeflow/trainer: unknown fields are dropped without a word.
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert job["spec"].keys() <= {"runtimeRef", "initializer", "trainer", "runtimePatches", "suspend", "managedBy"}
    trainer = {"image", "command", "args", "env", "numNodes", "resourcesPerNode", "numProcPerNode"}
    assert job["spec"]["trainer"].keys() <= trainer
    assert job["spec"]["runtimeRef"]["name"] == "torch-distributed"
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    assert replicated["name"] == pod["containers"][0]["name"] == "node"
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_the_job_s_command_is_understood(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    command = job["spec"]["trainer"]["command"]
    assert torchrun_accepts(command)
    config = parse_pretrain(command, monkeypatch)
    assert config.resume
    assert config.batch_size % job["spec"]["trainer"]["numProcPerNode"] == 0
    mounts = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    paths = [m["mountPath"] for m in mounts["template"]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]]
    for path in (config.out, *config.data):
        assert any(path.is_relative_to(mount) for mount in paths), f"{path} would be lost with the container"


def test_the_job_waits_for_the_snapshot(job: dict[str, Any]) -> None:
    (word,) = [word for word in job["spec"]["trainer"]["command"] if word.startswith("--shutdown-timeout=")]
    text = yaml.safe_dump(job)
    assert int(re.findall(r"terminationGracePeriodSeconds: (\d+)", text)[0]) > int(word.partition("=")[2])


def test_the_script_is_bash_and_its_command_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True, timeout=10)
    text = SCRIPT.read_text()
    (call,) = re.findall(r"^srun .*?&$", text, re.MULTILINE | re.DOTALL)
    settings = re.findall(r"^settings=\((.*)\)$", text, re.MULTILINE)[0]
    call = call.replace("\\\n", " ").replace('"${settings[@]}"', settings).replace('"${SLURM_GPUS_ON_NODE:-1}"', "8")
    words = shlex.split(call.replace('"$SLURM_NNODES"', "1").removesuffix("&"))
    assert torchrun_accepts(words)
    assert parse_pretrain(words, monkeypatch).resume
    (seconds,) = re.findall(r"--signal=B:TERM@(\d+)", text)
    assert int(seconds) > int(re.findall(r"--shutdown-timeout=(\d+)", text)[0])


class Cluster:
    """A folder with stand-ins for Slurm's commands: `srun` behaves as told, `scontrol` writes down what it is told."""

    def __init__(self, folder: Path, srun: str) -> None:
        self.calls = folder / "calls"
        (folder / ".venv/bin").mkdir(parents=True)
        (folder / ".venv/bin/activate").write_text("")
        (folder / "bin").mkdir()
        for name, body in {"srun": srun, "scontrol": f'echo "$@" >> {self.calls}; echo host-1'}.items():
            (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
            (folder / "bin" / name).chmod(0o755)
        environment = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "host-[1-2]", "SLURM_NNODES": "2"}
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        self.script = subprocess.Popen(["bash", SCRIPT], cwd=folder, env={**os.environ, **environment, "PATH": path})

    def requeues(self) -> bool:
        return "requeue 77" in self.calls.read_text()


@pytest.fixture
def started() -> Iterator[list[Cluster]]:
    """Clusters whose script is to end with the test."""
    found: list[Cluster] = []
    yield found
    for cluster in found:
        cluster.script.kill()
        cluster.script.wait()


@pytest.mark.parametrize("status", [0, 1])
def test_a_run_that_ends_by_itself_ends_the_job_as_it_ended(
    tmp_path: Path, started: list[Cluster], status: int
) -> None:
    started.append(Cluster(tmp_path, f"exit {status}"))
    assert started[0].script.wait(20) == status
    assert not started[0].requeues()


def test_a_job_that_is_preempted_waits_for_the_snapshot_and_queues_again(
    tmp_path: Path, started: list[Cluster]
) -> None:
    torchrun = "trap 'sleep 0.5; touch saved; exit 1' TERM; touch running; for i in {1..200}; do sleep 0.1; done"
    started.append(Cluster(tmp_path, torchrun))
    for _ in range(200):
        if (tmp_path / "running").exists():
            break
        time.sleep(0.05)
    started[0].script.send_signal(signal.SIGTERM)
    assert started[0].script.wait(20) == 0
    assert (tmp_path / "saved").exists()
    assert started[0].requeues()


def test_the_image_holds_what_training_needs() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    sources = {source for line in copied for source in line.split()}
    assert sources <= allowed
    assert {"groundup.py", "model", "training", "service"} <= sources
