import { describe, expect, it } from 'vitest';
import { LinkTable } from '../../../engine/core/link-table.js';
import { RangeLock } from '../../../engine/core/range-lock.js';
import { EventLog } from '../../../engine/events/event-log.js';
import { Pacer, SCRUB_PACER_POLICY } from '../../../engine/recovery/pacer.js';
import { Scrub, type ScrubReport } from '../../../engine/scrub/scrub.js';
import { ManualClock } from '../../common/manual-clock.js';
import { ALL_EQUAL } from '../../support/engine-bed.js';

/** A scrub of one extent that cannot get on, for no member is there, and what was kept of it. */
function bed(kept?: ScrubReport) {
  const clock = new ManualClock();
  const saved: ScrubReport[] = [];
  const scrub = new Scrub({
    ...{ table: new LinkTable(), lock: new RangeLock(), gate: ALL_EQUAL, clock },
    ...{ log: undefined as never, events: new EventLog(clock), volumeBytes: () => 1024 ** 2 },
    pacer: new Pacer({ clock, policy: SCRUB_PACER_POLICY, lastClientMs: () => -1e9 }),
    store: { load: async () => kept, save: async (report) => void saved.push(report) },
    allocatedExtents: async function* () {
      yield 0;
    },
    mend: async () => undefined,
  });
  return { scrub, saved, last: () => saved.at(-1) };
}

/** Lets the pass get to where it waits. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
}

describe('a scrub that does not come to its end', () => {
  it('stopped by a person: kept as stopped, and nobody goes on with it by himself', async () => {
    const { scrub, last } = bed();
    scrub.start();
    await settle();
    await scrub.stop();
    expect([scrub.report.state, scrub.interrupted]).toEqual(['stopped', false]);
    expect(last()?.state).toBe('stopped');
  });

  it('ended with its engine: kept as one that runs, and the next engine knows', async () => {
    const { scrub, last } = bed();
    scrub.start();
    await settle();
    await scrub.interrupt();
    expect([scrub.report.state, scrub.interrupted]).toEqual(['stopped', true]);
    const next = bed(last());
    await next.scrub.load();
    expect([next.scrub.report.state, next.scrub.interrupted]).toEqual(['stopped', true]);
    next.scrub.start();
    expect([next.scrub.report.state, next.scrub.interrupted]).toEqual(['running', false]);
    await next.scrub.interrupt();
  });

  it('interrupted, then stopped by a person: stays stopped over the next start', async () => {
    const first = bed();
    first.scrub.start();
    await settle();
    await first.scrub.interrupt();
    const next = bed(first.last());
    await next.scrub.load();
    await next.scrub.stop();
    expect(next.scrub.interrupted).toBe(false);
    expect(next.last()?.state).toBe('stopped');
  });
});
