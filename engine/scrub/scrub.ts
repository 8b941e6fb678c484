/**
 * Reads everything on every in-sync member, proves it equal, and mends what is not (scenarios 48,
 * 49, 51, 63).
 *
 * Each member hashes its own blocks and says which do not match their stored checksum; only hashes
 * travel. A range is looked at with its lock held (shared), so that no write is on its way. What is
 * found is mended under the exclusive lock by the block repair. Paced: clients go first. Where it
 * stopped it goes on, also after a restart of the engine, if `store` keeps the position.
 *
 * Found: bits that rotted, writes that went to the wrong place or that the device lost (checksums
 * are kept apart from the data, so an old block does not match), and copies that differ for
 * whatever other reason. Not found: the same wrong content with a matching checksum on all members.
 */
import { type Clock, sleep } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { EXTENT_SIZE } from '../../common/units.js';
import type { EqualGate } from '../core/equal-gate.js';
import type { LinkTable } from '../core/link-table.js';
import type { RangeLock } from '../core/range-lock.js';
import type { ReplicaLink } from '../core/replica-link.js';
import type { EventLog } from '../events/event-log.js';
import { hashRange } from '../recovery/member-io.js';
import type { Pacer } from '../recovery/pacer.js';
import { type Finding, judgeRange } from './scrub-judge.js';

export interface ScrubReport {
  readonly state: 'never' | 'running' | 'stopped' | 'done';
  /** wall time, for people; 0: never */
  readonly startedMs: number;
  readonly finishedMs: number;
  /** when the last whole pass began that found every block equal and as written, or mended it */
  readonly provedMs: number;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** bytes hashed on all members together */
  readonly hashedBytes: number;
  readonly badBlocks: number;
  readonly divergentBlocks: number;
  readonly undecidedBlocks: number;
  readonly lostBlocks: number;
  readonly repairedBlocks: number;
  /** first extent that this pass has not looked at */
  readonly nextExtent: number;
}

export const NO_SCRUB: ScrubReport = {
  state: 'never',
  startedMs: 0,
  finishedMs: 0,
  provedMs: 0,
  doneBytes: 0,
  totalBytes: 0,
  hashedBytes: 0,
  badBlocks: 0,
  divergentBlocks: 0,
  undecidedBlocks: 0,
  lostBlocks: 0,
  repairedBlocks: 0,
  nextExtent: 0,
};

/** Keeps the report over restarts. */
export interface ScrubStore {
  load(): Promise<ScrubReport | undefined>;
  save(report: ScrubReport): Promise<void>;
}

export interface ScrubOptions {
  readonly table: LinkTable;
  readonly lock: RangeLock;
  readonly gate: EqualGate;
  readonly pacer: Pacer;
  readonly clock: Clock;
  readonly log: Logger;
  readonly events: EventLog;
  readonly store: ScrubStore;
  readonly volumeBytes: () => number;
  /** Extents from `from` on that some in-sync member has allocated, ascending. */
  readonly allocatedExtents: (from: number) => AsyncIterable<number>;
  /** Mends one block of one member from a copy that is none of `avoid`. @throws StorageError why
   *  not */
  readonly mend: (
    link: ReplicaLink,
    offsetBytes: number,
    avoid: readonly ReplicaLink[],
  ) => Promise<void>;
}

const SAVE_EVERY_MS = 5_000;
const PARALLEL = 4;
const RETRY_MS = 1_000;

export class Scrub {
  readonly #options: ScrubOptions;
  #report: ScrubReport = NO_SCRUB;
  #abort: AbortController | undefined;
  #running: Promise<void> | undefined;
  #savedMs = Number.NEGATIVE_INFINITY;
  #interrupted = false;

  constructor(options: ScrubOptions) {
    this.#options = options;
  }

  get report(): ScrubReport {
    return this.#report;
  }

  /** Reads what was kept of an earlier run. */
  async load(): Promise<void> {
    const kept = await this.#options.store.load().catch(() => undefined);
    if (kept === undefined) return;
    this.#interrupted = kept.state === 'running';
    this.#report = this.#interrupted ? { ...kept, state: 'stopped' } : kept;
  }

  /** The pass was not stopped on purpose: it is kept as one that runs, for the next engine. */
  get interrupted(): boolean {
    return this.#interrupted;
  }

  /** Begins a pass, or goes on with one that was stopped. No effect while one runs. */
  start(): void {
    if (this.#running !== undefined) return;
    const { clock, events, volumeBytes } = this.#options;
    const before = this.#report;
    const resume = before.state === 'stopped';
    this.#report = resume
      ? { ...before, state: 'running' }
      : { ...NO_SCRUB, provedMs: before.provedMs, state: 'running', startedMs: clock.wallMs() };
    this.#report = { ...this.#report, totalBytes: volumeBytes() };
    events.add('scrub', resume ? 'scrub goes on' : 'scrub begins');
    this.#interrupted = false;
    this.#abort = new AbortController();
    this.#running = this.#run(this.#abort.signal).finally(() => {
      this.#running = undefined;
    });
  }

  /** Ends the pass under way; `start` goes on from there. */
  async stop(): Promise<void> {
    this.#abort?.abort(new StorageError('ABORTED', 'the scrub was stopped'));
    await this.#running;
    // Also one that was interrupted earlier: a person does not want it to go on.
    if (!this.#interrupted) return;
    this.#interrupted = false;
    await this.#save(true);
  }

  /** Ends the pass under way because the engine ends. */
  async interrupt(): Promise<void> {
    this.#abort?.abort(new StorageError('CLOSED', 'the engine stops'));
    await this.#running;
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, events } = this.#options;
    try {
      await this.#pass(signal);
    } catch (cause) {
      const { code, message } = toStorageError(cause, 'scrub');
      this.#report = { ...this.#report, state: 'stopped' };
      this.#interrupted = code !== 'ABORTED' || !signal.aborted;
      events.add('scrub', `scrub stopped: ${message}`);
      await this.#save(true);
      return;
    }
    const { undecidedBlocks, lostBlocks, startedMs, provedMs } = this.#report;
    const proved = undecidedBlocks + lostBlocks === 0;
    this.#report = {
      ...this.#report,
      state: 'done',
      finishedMs: clock.wallMs(),
      provedMs: proved ? startedMs : provedMs,
    };
    events.add('scrub', `scrub ended: ${summary(this.#report)}`);
    await this.#save(true);
  }

  /** Several extents at a time, begun in ascending order. */
  async #pass(signal: AbortSignal): Promise<void> {
    const { allocatedExtents, volumeBytes } = this.#options;
    const open = new Set<number>();
    const running = new Set<Promise<void>>();
    const failures: unknown[] = [];
    for await (const extent of allocatedExtents(this.#report.nextExtent)) {
      signal.throwIfAborted();
      if (failures.length > 0) break;
      open.add(extent);
      const work = this.#paced(extent, signal)
        .then(() => {
          open.delete(extent);
          this.#advance(open.size === 0 ? extent + 1 : Math.min(...open));
        })
        .catch((error: unknown) => void failures.push(error))
        .finally(() => running.delete(work));
      running.add(work);
      if (running.size >= PARALLEL) await Promise.race(running);
      await this.#save(false);
    }
    await Promise.all(running);
    if (failures.length > 0) throw failures[0];
    this.#advance(Math.ceil(volumeBytes() / EXTENT_SIZE));
  }

  #paced(extent: number, signal: AbortSignal): Promise<void> {
    const { pacer, table } = this.#options;
    const bytes = EXTENT_SIZE * Math.max(1, table.inSync.length);
    return pacer.run(bytes, signal, () => this.#extent(extent, signal));
  }

  #advance(nextExtent: number): void {
    const { totalBytes } = this.#report;
    const doneBytes = Math.min(totalBytes, nextExtent * EXTENT_SIZE);
    this.#report = { ...this.#report, nextExtent, doneBytes };
  }

  async #extent(extent: number, signal: AbortSignal): Promise<void> {
    const { clock, table } = this.#options;
    for (;;) {
      signal.throwIfAborted();
      const links = [...table.inSync];
      try {
        const findings = links.length === 0 ? undefined : await this.#look(extent, links);
        if (findings !== undefined) {
          for (const finding of findings) await this.#mend(finding, links);
          return;
        }
      } catch (error) {
        // A member that failed meanwhile is no reason to give up: the others are looked at.
        if (links.every((link) => link.broken === undefined)) throw error;
      }
      await sleep(clock, RETRY_MS, signal);
    }
  }

  async #look(extent: number, links: readonly ReplicaLink[]): Promise<Finding[]> {
    const { lock, gate, volumeBytes } = this.#options;
    const offsetBytes = extent * EXTENT_SIZE;
    const lengthBytes = Math.min(EXTENT_SIZE, volumeBytes() - offsetBytes);
    if (lengthBytes <= 0) return [];
    const range = { offsetBytes, lengthBytes };
    const hold = lock.lock(offsetBytes, lengthBytes, false);
    try {
      if (hold.ready !== undefined) await hold.ready;
      if (gate.active) await gate.pending(offsetBytes, lengthBytes);
      const found = await Promise.all(
        links.map(async (link) => ({
          replicaId: link.replicaId,
          found: await hashRange(link, range, { raw: false }),
        })),
      );
      const hashedBytes = this.#report.hashedBytes + lengthBytes * links.length;
      this.#report = { ...this.#report, hashedBytes };
      return judgeRange(offsetBytes, found);
    } finally {
      lock.unlock(hold);
    }
  }

  async #mend(finding: Finding, links: readonly ReplicaLink[]): Promise<void> {
    const { events, mend } = this.#options;
    const { kind, offsetBytes, members } = finding;
    this.#count(kind);
    const where = `block at ${offsetBytes}: ${kind} on ${members.join(', ')}`;
    if (kind === 'undecided' || kind === 'lost') {
      events.add('scrub', where, { code: 'CORRUPT_BLOCK' });
      return;
    }
    events.add('bad-block', where, { code: 'CORRUPT_BLOCK', replica: members[0] });
    const wrong = links.filter((link) => members.includes(link.replicaId));
    for (const link of wrong) {
      if (link.broken !== undefined) continue;
      await mend(link, offsetBytes, wrong);
      this.#report = { ...this.#report, repairedBlocks: this.#report.repairedBlocks + 1 };
    }
  }

  #count(kind: Finding['kind']): void {
    const r = this.#report;
    this.#report = {
      ...r,
      badBlocks: r.badBlocks + (kind === 'bad' ? 1 : 0),
      divergentBlocks: r.divergentBlocks + (kind === 'divergent' ? 1 : 0),
      undecidedBlocks: r.undecidedBlocks + (kind === 'undecided' ? 1 : 0),
      lostBlocks: r.lostBlocks + (kind === 'lost' ? 1 : 0),
    };
  }

  async #save(now: boolean): Promise<void> {
    const { clock, store, log } = this.#options;
    if (!now && clock.nowMs() - this.#savedMs < SAVE_EVERY_MS) return;
    this.#savedMs = clock.nowMs();
    const state = this.#interrupted ? 'running' : this.#report.state;
    await store.save({ ...this.#report, state }).catch((error: unknown) => {
      log.warn({ err: error }, 'the position of the scrub could not be kept');
    });
  }
}

function summary(report: ScrubReport): string {
  const { badBlocks, divergentBlocks, undecidedBlocks, lostBlocks, repairedBlocks } = report;
  const found = badBlocks + divergentBlocks + undecidedBlocks + lostBlocks;
  if (found === 0) return 'all copies are equal and as written';
  const open = undecidedBlocks + lostBlocks;
  return `${found} blocks were not as they should be, ${repairedBlocks} repaired, ${open} open`;
}
