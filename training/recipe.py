"""What surrounds the work of every recipe: its processes, its folder, its generators, and how it may end."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from model.config import GPTConfig
from training.config.run import RunConfig
from training.machine.device import pick_device, set_up_torch
from training.machine.hardware import Meter
from training.machine.parallel import World, join
from training.run.best import OnDisk
from training.run.folder import RunFolder, is_finished, run_folder
from training.run.progress import show_messages
from training.run.state import TrainerState
from training.run.stop import StoppedError, stopping_at_once
from training.run.tracking import MetricsLog
from training.trainer import Keeping

logger = logging.getLogger(__name__)


def conduct(config: RunConfig, work: Callable[[RunFolder], None]) -> None:
    """Do the work of a run in its folder, on this process or with the others that torchrun started.

    A run that is told to stop (SIGTERM) ends well, whatever it is doing; what it has kept is gone on from.

    Raises:
        OutputError: the checkpoint cannot be put where it should go, or the run cannot go on from where it stood.
    """
    with suppress(StoppedError), stopping_at_once(), join(config.device) as world:
        show_messages()
        if not world.is_first:
            logging.getLogger("training").setLevel(logging.ERROR)
        if world.alone(lambda: is_finished(config)):
            logger.info("%s is finished; nothing is left to do", config.out)
            return
        with run_folder(config) as folder:
            set_up_torch(config)
            work(folder)


def open_log(config: RunConfig, folder: RunFolder) -> MetricsLog:
    """Return the log of a run, which goes on where the run does; on the first process it is written to the folder.

    Raises:
        TrackingError: TensorBoard is asked for but not installed.
    """
    if not World.current().is_first:
        return MetricsLog()
    return MetricsLog(folder.metrics, resume_step=folder.resume_step, tensorboard=config.tensorboard)


def keeping(
    config: RunConfig,
    folder: RunFolder,
    log: MetricsLog,
    shape: GPTConfig,
    write_best: Callable[[Path, Any], object],
) -> Keeping:
    """Return what a run leaves behind and shows while it goes on.

    Args:
        write_best: writes a checkpoint of the model, which may be served before the run is over.
    """
    world, device, half = World.current(), pick_device(config.device), config.precision == "bf16"
    kept = Keeping(log=log, snapshots=folder.snapshots(), best=OnDisk(folder.path, write_best))
    if world.is_first:
        kept["meter"] = Meter.of(shape, device, half=half, num_devices=world.size)
    return kept


def digest(content: object) -> str:
    """Return a digest of what a run reads: anything made of strings, numbers, lists, dictionaries and dataclasses."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def must_be_over(state: TrainerState) -> None:
    """Go on only with the result of a run that came to its end.

    Raises:
        StoppedError: the run was asked to stop, and has been saved.
    """
    if state.is_stopped:
        raise StoppedError
