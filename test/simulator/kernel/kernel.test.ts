/** The simulated kernel: order, turns, clocks, processes that stop and die; the same seed, the same
 *  run. */
import { describe, expect, it } from 'vitest';
import { EventQueue, SimEvent } from './event-queue.js';
import { Random } from './random.js';
import { Scheduler } from './scheduler.js';
import { SimHost } from './sim-process.js';

function world(quantumMs = 0) {
  const scheduler = new Scheduler({ quantumMs });
  const host = new SimHost(scheduler, 'a', new Random(1));
  return { scheduler, host, process: host.start('p') };
}

describe('random', () => {
  it('repeats by seed, and streams by name are independent', () => {
    const draw = (seed: number, name: string): number[] => {
      const random = new Random(seed).fork(name);
      return Array.from({ length: 5 }, () => random.next());
    };
    expect(draw(7, 'x')).toEqual(draw(7, 'x'));
    expect(draw(7, 'x')).not.toEqual(draw(7, 'y'));
    expect(draw(7, 'x')).not.toEqual(draw(8, 'x'));
  });

  it('is spread evenly enough', () => {
    const random = new Random(3);
    const counts = new Array<number>(10).fill(0);
    for (let n = 0; n < 10_000; n += 1) {
      const at = random.int(10);
      counts[at] = (counts[at] ?? 0) + 1;
    }
    expect(Math.min(...counts)).toBeGreaterThan(900);
    expect(Math.max(...counts)).toBeLessThan(1_100);
  });
});

describe('event queue', () => {
  it('gives events by time, then by the order in which they came', () => {
    const queue = new EventQueue();
    const random = new Random(5);
    const nothing = (): void => undefined;
    for (let order = 0; order < 500; order += 1) {
      queue.push(new SimEvent(random.int(20), order, undefined, nothing));
    }
    let last = queue.pop();
    let count = 1;
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      const after = next.timeMs - (last?.timeMs ?? 0) || next.order - (last?.order ?? 0);
      expect(after).toBeGreaterThan(0);
      last = next;
      count += 1;
    }
    expect(count).toBe(500);
  });
});

describe('scheduler', () => {
  it('settles all promises of an event before the next one', async () => {
    const { scheduler } = world();
    const seen: string[] = [];
    scheduler.after(1, () => {
      const chain = async (): Promise<void> => {
        for (let n = 0; n < 50; n += 1) await Promise.resolve();
        seen.push('promise');
      };
      void chain();
    });
    scheduler.after(1, () => seen.push('event'));
    await scheduler.run();
    expect(seen).toEqual(['promise', 'event']);
  });

  it('stops when told, and goes on from there', async () => {
    const { scheduler } = world();
    const seen: number[] = [];
    for (const at of [1, 2, 3]) scheduler.at(at, () => seen.push(at));
    scheduler.at(2, () => scheduler.stop());
    await scheduler.run();
    expect([scheduler.nowMs, seen]).toEqual([2, [1, 2]]);
    await scheduler.run();
    expect(seen).toEqual([1, 2, 3]);
  });

  it('rejects with what an event threw, and when there is no end', async () => {
    const { scheduler } = world();
    scheduler.after(1, () => {
      throw new Error('assertion');
    });
    await expect(scheduler.run()).rejects.toThrow('assertion');
    const endless = new Scheduler({ eventsMax: 100 });
    const again = (): void => {
      endless.after(1, again);
    };
    again();
    await expect(endless.run()).rejects.toThrow('more than 100 events');
  });

  it('has the same digest for the same run only', async () => {
    const run = async (seed: number): Promise<string> => {
      const scheduler = new Scheduler();
      const random = new Random(seed);
      for (let n = 0; n < 50; n += 1) scheduler.at(random.next(), () => undefined);
      await scheduler.run();
      return scheduler.digest;
    };
    expect(await run(1)).toBe(await run(1));
    expect(await run(1)).not.toBe(await run(2));
  });
});

describe('processes', () => {
  it('have turns on a grid: what arrives within one turn comes before its end', async () => {
    const { scheduler, process } = world(1);
    const seen: string[] = [];
    process.post(0.1, () => {
      seen.push('first');
      process.endOfTurn(() => seen.push('end of turn'));
    });
    process.post(0.7, () => seen.push('second'));
    process.post(1.2, () => seen.push('next turn'));
    await scheduler.run();
    expect(seen).toEqual(['first', 'second', 'end of turn', 'next turn']);
  });

  it('that are stopped keep their events, and their clock goes on', async () => {
    const { scheduler, process } = world();
    const seen: string[] = [];
    const startMs = process.clock.nowMs();
    process.clock.after(5, () => seen.push(`timer at ${scheduler.nowMs}`));
    process.post(6, () => seen.push('message'));
    scheduler.at(1, () => process.stop());
    scheduler.at(50, () => process.continue());
    await scheduler.run();
    expect(seen).toEqual(['timer at 50', 'message']);
    expect(process.clock.nowMs() - startMs).toBeCloseTo(50, 1);
  });

  it('that died do nothing, and what the kernel cleans up is told how', async () => {
    const { scheduler, process } = world();
    const seen: string[] = [];
    process.onDeath((how) => seen.push(how));
    process.post(2, () => seen.push('never'));
    scheduler.at(1, () => process.die('kill'));
    await scheduler.run();
    expect(seen).toEqual(['kill']);
    expect(process.alive).toBe(false);
  });

  it('have clocks of their own rate; a timer fires by its own', async () => {
    const scheduler = new Scheduler();
    const hosts = ['a', 'b'].map((name) => new SimHost(scheduler, name, new Random(9)));
    const spans: number[] = [];
    for (const host of hosts) {
      const { clock } = host.start('p');
      const startMs = clock.nowMs();
      clock.after(100_000, () => spans.push(clock.nowMs() - startMs));
    }
    await scheduler.run();
    for (const span of spans) expect(span).toBeCloseTo(100_000, 3);
    expect(scheduler.nowMs).not.toBeCloseTo(100_000, 1);
  });

  it('of a host without power are all gone, and the next kernel has another boot id', () => {
    const { host, process } = world();
    const { bootId } = host;
    host.losePower();
    expect(process.alive).toBe(false);
    expect(() => host.start('q')).toThrow(/no power/);
    host.boot();
    expect(host.bootId).not.toBe(bootId);
    expect(host.start('q').alive).toBe(true);
  });
});
