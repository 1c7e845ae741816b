"""Work done before its result is asked for, in threads, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], workers: int, held: int = 0) -> Iterator[R]:
    """`function` of every item, in the items' order, by `workers` threads; 0: by the caller's own, nothing ahead.

    At most `workers` + `held` results are made before they are asked for, so that an endless iterable costs no memory. The items are taken
    in the caller's thread.
    """
    if not workers:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor  # here: one clip needs none

    pool = ThreadPoolExecutor(workers, thread_name_prefix="stapes")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers + held:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # where the caller stops early, or an item fails
        # Never waiting: an abandoned generator is closed by the garbage collector, in any thread and amid any lock, a thread's own start
        # among them; joining a thread there is a deadlock.
        pool.shutdown(wait=False, cancel_futures=True)
