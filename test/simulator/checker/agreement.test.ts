/**
 * The checker against other ways to the same answer: zones against an exhaustive search,
 * durability against all orders tried one by one, and histories of a register that is right.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { History, NEVER, type OperationKind } from '../../support/history.js';
import { seededRandom } from '../../support/memory-device.js';
import { checkHistory } from './check-history.js';
import { type Step, searchOrder } from './order-search.js';
import { type Cluster, findConflict } from './zones.js';

interface Interval {
  readonly start: number;
  readonly end: number;
}

/** Places 2 n distinct positions: the k-th pair of a random permutation is operation k. */
function intervals(count: number, random: () => number): Interval[] {
  const places = Array.from({ length: 2 * count }, (_, n) => n + 1);
  for (let at = places.length - 1; at > 0; at -= 1) {
    const other = Math.floor(random() * (at + 1));
    [places[at], places[other]] = [places[other] ?? 0, places[at] ?? 0];
  }
  return Array.from({ length: count }, (_, n) => {
    const [a, b] = [places[2 * n] ?? 0, places[2 * n + 1] ?? 0];
    return { start: Math.min(a, b), end: Math.max(a, b) };
  });
}

function clustersOf(steps: readonly Step[]): Cluster[] {
  const clusters = new Map<number, Cluster>();
  for (const { value, start, end } of steps) {
    const cluster = clusters.get(value);
    if (cluster === undefined) {
      const times = { f: end, s: start, firstEnded: undefined, lastStarted: undefined };
      clusters.set(value, { value, born: start, certain: true, ...times });
    } else {
      cluster.f = Math.min(cluster.f, end);
      cluster.s = Math.max(cluster.s, start);
    }
  }
  return [...clusters.values()];
}

/** A history whose end is legal or not by chance: writes of distinct values, reads of any. */
function randomSteps(seed: number): Step[] {
  const random = seededRandom(seed);
  const writes = 1 + Math.floor(random() * 4);
  const count = writes + Math.floor(random() * 6);
  return intervals(count, random).map((interval, n) => ({
    ...interval,
    isRead: n >= writes,
    value: n < writes ? n + 1 : 1 + Math.floor(random() * writes),
    maybe: false,
  }));
}

/** Reads that end before their write starts are found before zones are asked. */
function knowsFuture(steps: readonly Step[]): boolean {
  return steps.some(
    (read) =>
      read.isRead &&
      steps.some((write) => !write.isRead && write.value === read.value && write.start > read.end),
  );
}

describe('zones and search', () => {
  it('agree on histories of distinct values', () => {
    const counts = { possible: 0, impossible: 0 };
    for (let seed = 1; seed <= 4_000; seed += 1) {
      const steps = randomSteps(seed);
      if (knowsFuture(steps)) continue;
      const byZones = findConflict(clustersOf(steps)) === undefined ? 'possible' : 'impossible';
      expect([seed, searchOrder(steps, undefined)]).toEqual([seed, byZones]);
      counts[byZones] += 1;
    }
    expect(Math.min(counts.possible, counts.impossible)).toBeGreaterThan(150);
  });

  it('the search gives up at its limit, and says so', () => {
    const many = Array.from({ length: 24 }, (_, n) => ({ start: n, end: 100 + n }));
    const steps = many.map((interval, n) => ({
      ...interval,
      value: n,
      isRead: false,
      maybe: false,
    }));
    const read = { start: 200, end: 201, value: -7, isRead: true, maybe: false };
    expect(searchOrder([...steps, read], undefined, 500)).toBe('undecided');
  });
});

/** Every order of the writes that agrees with time. */
function* orders(left: readonly Interval[], done: readonly number[] = []): Iterable<number[]> {
  if (done.length === left.length) yield [...done];
  const open = left.map((_, n) => n).filter((n) => !done.includes(n));
  for (const n of open) {
    const { start } = left[n] as Interval;
    const mustComeFirst = open.some((other) => (left[other] as Interval).end < start);
    if (!mustComeFirst) yield* orders(left, [...done, n]);
  }
}

describe('durability after a power cut of every copy (D1, D2, F3)', () => {
  it('allows exactly what some order allows', () => {
    let excluded = 0;
    for (let seed = 1; seed <= 600; seed += 1) {
      const random = seededRandom(seed);
      const writes = intervals(1 + Math.floor(random() * 4), random);
      const durable = writes.map(() => random() < 0.5);
      const allowed = new Set<number>(durable.some((is) => is) ? [] : [0]);
      for (const order of orders(writes)) {
        const last = order.findLastIndex((n) => durable[n]);
        for (const n of order.slice(Math.max(0, last))) allowed.add(n + 1);
      }
      for (let value = 0; value <= writes.length; value += 1) {
        const legal = afterCut(writes, durable, value);
        expect([seed, value, legal]).toEqual([seed, value, allowed.has(value)]);
        if (!legal) excluded += 1;
      }
    }
    expect(excluded).toBeGreaterThan(300);
  });
});

/** Whether a read of the value is legal after writes, some of them FUA, and a power cut. Values are
 *  numbered as in `writes`, from 1. */
function afterCut(
  writes: readonly Interval[],
  durable: readonly boolean[],
  value: number,
): boolean {
  const history = new History({ run: 1, cells: 1, multiConn: true });
  const place = { first: 0, count: 1, connection: 0 };
  const ops: number[] = [];
  for (let at = 1; at <= 2 * writes.length; at += 1) {
    const n = writes.findIndex(({ start, end }) => start === at || end === at);
    const fua = durable[n] === true;
    if (writes[n]?.start === at) ops[n] = history.start(at, { ...place, kind: 'W', fua });
    else history.end(at, ops[n] ?? 0, { outcome: 'ok' });
  }
  history.crash(100, true);
  const read = history.start(101, { ...place, kind: 'R' });
  history.end(102, read, { outcome: 'ok', values: [value === 0 ? 0 : (ops[value - 1] ?? 0)] });
  return checkHistory(history).violations.length === 0;
}

/** A register that is right, driven by chance: operations take effect between their start and their
 *  end, a flush makes all durable, a power cut leaves any value not older than the durable one. */
class RightRegister {
  readonly history = new History({ run: 1, cells: 1, multiConn: true });
  readonly #random: () => number;
  #ms = 0;
  #value = 0;
  /** values since the last durable one, in order */
  #since: number[] = [0];
  #open: Array<{ op: number; kind: OperationKind; fua: boolean; done: boolean; saw: number }> = [];

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  run(steps: number): History {
    for (let step = 0; step < steps; step += 1) {
      this.#ms += 1;
      const dice = this.#random();
      if (dice < 0.4) this.#start();
      else if (dice < 0.65) this.#takeEffect();
      else if (dice < 0.96) this.#end();
      else this.#crash(dice > 0.98);
    }
    return this.history;
  }

  #pick() {
    return this.#open[Math.floor(this.#random() * this.#open.length)];
  }

  #start(): void {
    if (this.#open.length >= 5) return;
    const kinds = ['R', 'R', 'R', 'W', 'W', 'T', 'F'] as const;
    const kind = kinds[Math.floor(this.#random() * kinds.length)] ?? 'R';
    const fua = this.#random() < 0.2 && kind !== 'R' && kind !== 'F';
    const place = kind === 'F' ? {} : { first: 0, count: 1 };
    const op = this.history.start(this.#ms, { kind, connection: 0, fua, ...place });
    this.#open.push({ op, kind, fua, done: false, saw: 0 });
  }

  #takeEffect(): void {
    const one = this.#pick();
    if (one === undefined || one.done) return;
    one.done = true;
    one.saw = this.#value;
    if (one.kind === 'W' || one.kind === 'T') {
      this.#value = one.kind === 'W' ? one.op : 0;
      this.#since.push(this.#value);
    }
    if (one.fua || one.kind === 'F') this.#since = [this.#value];
  }

  #end(): void {
    const one = this.#pick();
    if (one?.done !== true) return;
    this.#open = this.#open.filter((other) => other !== one);
    const values = one.kind === 'R' ? { values: [one.saw] } : {};
    this.history.end(this.#ms, one.op, { outcome: 'ok', ...values });
  }

  #crash(hard: boolean): void {
    for (const { op } of this.#open) this.history.end(this.#ms, op, { outcome: 'unknown' });
    this.#open = [];
    this.history.crash(this.#ms, hard);
    if (hard) this.#value = this.#since[Math.floor(this.#random() * this.#since.length)] ?? 0;
    if (hard) this.#since = [this.#value];
    this.history.serve(this.#ms, 0);
  }
}

describe('a register that is right', () => {
  it('is never found guilty', () => {
    const seeds = { numRuns: 1_500, seed: 7 };
    const judge = (seed: number): void => {
      const report = checkHistory(new RightRegister(seed).run(200));
      expect(report).toMatchObject({ violations: [], undecided: 0 });
    };
    fc.assert(fc.property(fc.integer({ min: 1, max: 2 ** 31 }), judge), seeds);
  });

  it('is found guilty when one read is changed to a write that was overwritten before', () => {
    let changed = 0;
    for (let seed = 1; seed <= 400; seed += 1) {
      const history = new RightRegister(seed).run(60);
      if (history.crashes.some(({ hard }) => hard)) continue;
      const done = (kind: OperationKind, after: number) =>
        history.operations.find((o) => o.kind === kind && o.outcome === 'ok' && o.startAt > after);
      const older = done('W', 0);
      const newer = done('W', older?.endAt ?? NEVER);
      const read = done('R', newer?.endAt ?? NEVER);
      if (older === undefined || read === undefined) continue;
      read.values = [older.op];
      expect([seed, checkHistory(history).violations.length]).toEqual([seed, 1]);
      changed += 1;
    }
    expect(changed).toBeGreaterThan(10);
  });
});
