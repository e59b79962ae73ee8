"""Results of many items in the order of the items, with a bounded number of them in memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import takewhile
from typing import TypeVar

from mien._signals import interruptible

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


def in_order(
    pool: ThreadPoolExecutor, task: Callable[[_Given], _Result], items: Iterable[_Given], window: int
) -> Generator[_Result, None, None]:
    """Yield the results of a task for each item, in their order. Few tasks run at a time, which bounds the memory.

    Args:
        pool: The threads; they are ended at the end.
        task: What is done with an item.
        items: The items. An item is taken when a task for it may start.
        window: Largest number of tasks that run or have a result that was not taken.

    Yields:
        The results.

    Raises:
        KeyboardInterrupt: After the results that were ready.
    """
    running: deque[Future[_Result]] = deque()
    wait = True
    try:
        for item in items:
            running.append(pool.submit(task, item))
            if len(running) >= window:
                yield _first_result(running)
        while running:
            yield _first_result(running)
    except KeyboardInterrupt:
        wait = False  # a thread may read a pipe for ever
        yield from (future.result() for future in takewhile(Future.done, running))
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


def _first_result(running: deque[Future[_Result]]) -> _Result:
    if not running[0].done():
        with interruptible():
            running[0].result()
    return running.popleft().result()


def until_error(
    items: Iterable[_Given], read: Callable[[Iterator[_Given]], Generator[_Result, None, None]]
) -> Generator[_Result, None, None]:
    """Yield the results of items. An error of the items themselves is raised after the results of those before it.

    Args:
        items: The items; to take one may raise an error.
        read: The generator of the results.

    Yields:
        The results.

    Raises:
        Exception: What the items raised.
    """
    errors: list[Exception] = []

    def before_error() -> Iterator[_Given]:
        try:
            for item in items:  # noqa: UP028 (it would close the items)
                yield item
        except Exception as error:
            errors.append(error)

    with closing(read(before_error())) as results:
        yield from results
    if errors:
        raise errors.pop()
