"""Threads for requests: few at once, the warm one first, and the slow hold up nobody for long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial

from memdb.server.workers import Workers

_PATIENCE_S = 20.0  # nothing here takes long


def _run(work: Callable[[Workers], Awaitable[None]], **given: int) -> None:
    async def main() -> None:
        workers = Workers("test", **given)
        try:
            await asyncio.wait_for(work(workers), _PATIENCE_S)
        finally:
            await asyncio.to_thread(workers.close)

    asyncio.run(main())


async def _done(workers: Workers, work: Callable[[], object]) -> object:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()

    def do() -> None:
        loop.call_soon_threadsafe(future.set_result, work())

    workers.submit(do)
    return await future


def test_what_comes_one_after_the_other_is_done_by_one_thread() -> None:
    async def ask(workers: Workers) -> None:
        names = [await _done(workers, lambda: threading.current_thread().name)]
        for _ in range(20):
            names.append(await _done(workers, lambda: threading.current_thread().name))
            await _rested(workers)
        assert len(set(names)) <= 2  # the answer may be here before the thread rests

    _run(ask, at_once=4, most=8)


async def _rested(workers: Workers) -> None:
    while workers._busy:
        await asyncio.sleep(0)


def test_no_more_are_at_work_than_have_use_and_the_order_is_kept() -> None:
    async def ask(workers: Workers) -> None:
        guard, at_work, most = threading.Lock(), 0, 0
        order: list[int] = []

        def work(number: int) -> None:
            nonlocal at_work, most
            with guard:
                at_work += 1
                most = max(most, at_work)
                order.append(number)
            with guard:
                at_work -= 1

        await asyncio.gather(*(_done(workers, partial(work, number)) for number in range(50)))
        assert most == 1
        assert order == list(range(50))

    _run(ask, at_once=1, most=1)


def test_work_behind_what_takes_long_is_begun_all_the_same() -> None:
    async def ask(workers: Workers) -> None:
        end = threading.Event()
        slow = [asyncio.ensure_future(_done(workers, lambda: end.wait(_PATIENCE_S))) for _ in "ab"]
        await asyncio.sleep(0)
        quick = [_done(workers, partial(int, number)) for number in range(5)]
        assert await asyncio.gather(*quick) == list(range(5))
        assert not any(one.done() for one in slow)
        end.set()
        assert await asyncio.gather(*slow) == [True, True]

    _run(ask, at_once=2, most=4)


def test_no_more_than_most_are_begun_and_what_waits_at_the_end_never_is() -> None:
    begun: list[int] = []
    end = threading.Event()

    async def ask(workers: Workers) -> None:
        def work(number: int) -> None:
            begun.append(number)
            end.wait(_PATIENCE_S)

        for number in range(6):
            workers.submit(partial(work, number))
        while len(begun) < 3:
            await asyncio.sleep(0.001)
        for _ in range(3):  # it looks again, and begins no more
            workers._look()
        assert sorted(begun) == [0, 1, 2]
        closing = asyncio.ensure_future(asyncio.to_thread(workers.close))
        while not workers._closed:
            await asyncio.sleep(0)
        end.set()
        await closing

    _run(ask, at_once=1, most=3)
    assert sorted(begun) == [0, 1, 2]
