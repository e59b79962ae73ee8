"""Who makes the trials of a search: this process alone, or several beside each other."""

import os
import signal
from contextlib import suppress
from multiprocessing import get_context, parent_process
from queue import Empty
from typing import Any

import torch

from mien._errors import MienError
from mien.lab.feed.shelf import Shelf
from mien.lab.search.study import Event, Plan, Report, open_study
from mien.lab.search.trial import make_trial
from mien.lab.train.loggers import silence_lightning


def work_alone(plan: Plan, trials: int, report: Report) -> None:
    """Make ``trials`` trials in this process."""
    shelf = Shelf(plan.data)
    with open_study(plan) as study:
        for _ in range(trials):
            make_trial(plan, study, shelf, report)


def work_together(plan: Plan, trials: int, report: Report) -> None:
    """Several processes, each making trials as long as there are tickets."""
    context = get_context("spawn")
    tickets, events = context.Value("i", trials), context.Queue()
    workers = [
        context.Process(target=_work, args=(plan, tickets, events, number), daemon=True)
        for number in range(min(plan.workers, trials))
    ]
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            _listen(events, report)
        while _listen(events, report):
            pass
        if any(worker.exitcode for worker in workers):
            raise MienError("a worker of the search ended early; its trial goes on when the same command is run again")
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()
                worker.join()


def _listen(events: Any, report: Report) -> bool:
    """Pass on one event, if one comes soon. Raises the error that a worker met."""
    try:
        event = events.get(timeout=0.3)
    except Empty:
        return False
    if isinstance(event, MienError):
        raise event
    report(event)
    return True


def _work(plan: Plan, tickets: Any, events: Any, number: int) -> None:
    """The life of one worker process. Ctrl-C is the business of the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence_lightning()
    _share_machine(plan.workers, number)
    shelf = Shelf(plan.data)

    def report(event: Event) -> None:
        parent = parent_process()
        if parent is not None and not parent.is_alive():
            raise SystemExit(1)  # nobody is left to end this process
        events.put(event)

    try:
        with open_study(plan, worker=number) as study:
            while _take(tickets):
                make_trial(plan, study, shelf, report, asking=tickets.get_lock())
    except MienError as error:
        events.put(MienError(str(error)))


def _take(tickets: Any) -> bool:
    with tickets.get_lock():
        tickets.value -= 1
        return bool(tickets.value >= 0)


def _share_machine(workers: int, number: int) -> None:
    """A worker's part of the cores, and one GPU after another where there are several."""
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    with suppress(RuntimeError):
        gpus = torch.cuda.device_count()
        if gpus > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(number % gpus)
