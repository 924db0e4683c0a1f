"""The batcher and who has left or is late: he does not run, whenever that was, and his batch does not notice."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.errors import DeadlineExceeded
from service.runtime.batcher import Batcher
from service.runtime.costs import BatchCost, Costs, Curve
from service.runtime.grouping import WINDOW, Grouping
from tests.service.runtime.gated import LATER, GatedRun, picture, settle, values, with_batcher


def test_cancelled_member_does_not_disturb_its_batch_and_does_not_run() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        crowd = [asyncio.ensure_future(batcher.submit(picture(i), LATER)) for i in (1, 2, 3)]
        await settle()
        crowd[1].cancel()
        await settle()
        run.gate.release(2)
        assert values(await asyncio.gather(first, crowd[0], crowd[2])) == [0, 1, 3]
        assert run.batches[1] == (2, 4, 4, 3)

    with_batcher(test)


def test_client_that_leaves_during_its_run_hurts_nobody() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        first.cancel()
        second = asyncio.ensure_future(batcher.submit(picture(5), LATER))
        await settle()
        run.gate.release(2)
        assert values([await second]) == [5]
        assert first.cancelled()

    with_batcher(test)


def test_expired_member_is_told_so_and_does_not_run() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        late = asyncio.ensure_future(batcher.submit(picture(1), time.monotonic()))
        good = asyncio.ensure_future(batcher.submit(picture(2), LATER))
        await settle()
        run.gate.release(2)
        assert values(await asyncio.gather(first, good)) == [0, 2]
        with pytest.raises(DeadlineExceeded):
            await late
        assert run.batches[1] == (1, 4, 4, 3)

    with_batcher(test)


def test_of_a_long_queue_nobody_runs_who_has_left_or_is_late() -> None:
    """More have left than are looked at for one batch; who came behind them runs, and only they."""

    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        gone = [asyncio.ensure_future(batcher.submit(picture(1), LATER)) for _ in range(WINDOW + 50)]
        late = [asyncio.ensure_future(batcher.submit(picture(2), time.monotonic())) for _ in range(WINDOW + 50)]
        here = [asyncio.ensure_future(batcher.submit(picture(3), LATER)) for _ in range(4)]
        await settle()
        for task in gone:
            task.cancel()
        await settle()
        run.gate.release(2)
        assert values(await asyncio.gather(first, *here)) == [0, 3, 3, 3, 3]
        results = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(result, DeadlineExceeded) for result in results)
        assert run.batches[1:] == [(4, 4, 4, 3)]

    with_batcher(test)


@pytest.mark.parametrize("switch_s", [0.0, 0.5], ids=["any shape", "few shapes"])
def test_member_that_leaves_after_the_plan_was_made_does_not_run(switch_s: float) -> None:
    """Three sizes are planned as several batches; while the first runs, members of the later ones leave."""

    async def test() -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0, 9, 9), LATER))
        await run.has_begun()
        crowd = [asyncio.ensure_future(batcher.submit(picture(i, 4 + i % 3, 4), LATER)) for i in range(1, 13)]
        await settle()
        run.gate.release()  # the first; then a batch of the plan begins
        await run.has_begun()
        waiting = [task for task in crowd if not task.done()]
        leaves = [i for i in range(len(crowd)) if (4 + (i + 1) % 3) != run.batches[-1][1]][:5]
        for i in leaves:
            crowd[i].cancel()
        await settle()
        run.gate.release(100)
        results = await asyncio.gather(first, *crowd, return_exceptions=True)
        assert waiting
        for i, result in enumerate(results[1:]):
            if i in leaves:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert values([result]) == [i + 1]  # type: ignore[list-item]
        if not switch_s:
            assert sum(shape[0] for shape in run.batches) == 13 - len(leaves)

    line = Curve.through([(1, 1e-3), (100, 1e-3)])
    grouping = Grouping(Costs(line, BatchCost(1e-3, line), switch_s=switch_s), max_pixels=10_000)
    run = GatedRun()
    batcher = Batcher(run, name="test", grouping=grouping)
    batcher.start()
    try:
        asyncio.run(test())
    finally:
        run.gate.release(1000)
        batcher.stop()
