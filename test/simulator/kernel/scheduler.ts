/**
 * Runs a simulated world: one event after the other, in the order of simulated time, and after each
 * all the promises that it settled.
 *
 * - One event is one turn of one process. Node runs the microtasks between two immediates, so a
 *   batch of immediates, one event each, costs little more than calls.
 * - Events of a process fall on a grid of time, so that some arrive in one turn of its event loop
 *   and meet in one message or one batch, as they do in life.
 * - An event of a dead process is dropped, one of a stopped process waits for its continuation.
 * - `digest` changes with every event: two runs of one seed have the same one, or something came in
 *   from outside.
 */
import assert from 'node:assert';
import { EventQueue, SimEvent } from './event-queue.js';
import type { SimProcess } from './sim-process.js';

/** Events between two looks at the real world. */
const BATCH = 256;

export interface SchedulerOptions {
  /** grid of the events of processes; 0: none */
  readonly quantumMs?: number;
  /** more events than this end the run with an error: something runs for ever */
  readonly eventsMax?: number;
}

export class Scheduler {
  nowMs = 0;
  events = 0;
  readonly #queue = new EventQueue();
  readonly #quantumMs: number;
  readonly #eventsMax: number;
  readonly #time = new Float64Array(1);
  readonly #words = new Uint32Array(this.#time.buffer);
  #order = 0;
  #digest = 0x811c9dc5;
  #running = false;
  #stopped = false;
  #failure: unknown;

  constructor(options: SchedulerOptions = {}) {
    this.#quantumMs = options.quantumMs ?? 0;
    this.#eventsMax = options.eventsMax ?? 50_000_000;
  }

  /** Of everything that happened so far. */
  get digest(): string {
    return (this.#digest >>> 0).toString(16).padStart(8, '0');
  }

  get pending(): number {
    return this.#queue.size;
  }

  /** Mixes a fact into the digest. */
  note(value: number): void {
    this.#digest = Math.imul(this.#digest ^ value, 0x01000193);
  }

  /** The world acts at a time, or now if that has passed. */
  at(timeMs: number, callback: () => void): SimEvent {
    return this.#add(Math.max(timeMs, this.nowMs), undefined, callback);
  }

  after(delayMs: number, callback: () => void): SimEvent {
    return this.at(this.nowMs + delayMs, callback);
  }

  /** A turn of a process. */
  post(owner: SimProcess, timeMs: number, callback: () => void): SimEvent {
    const q = this.#quantumMs;
    const time = Math.max(timeMs, this.nowMs);
    return this.#add(q > 0 ? Math.ceil(time / q) * q : time, owner, callback);
  }

  /** Runs until `stop` is called or nothing is left to do. Rejects with what an event threw. */
  run(): Promise<void> {
    assert(!this.#running, 'a scheduler runs once at a time');
    this.#running = true;
    this.#stopped = false;
    return new Promise((resolve, reject) => {
      let left = 0;
      const step = (): void => {
        left -= 1;
        if (!this.#stopped) this.#step();
        if (left > 0) return;
        if (!this.#stopped) {
          refill();
          return;
        }
        this.#running = false;
        if (this.#failure === undefined) resolve();
        else reject(this.#failure);
      };
      const refill = (): void => {
        left = BATCH;
        for (let n = 0; n < BATCH; n += 1) setImmediate(step);
      };
      refill();
    });
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Ends the run with an error. */
  fail(error: unknown): void {
    this.#failure ??= error;
    this.#stopped = true;
  }

  #add(timeMs: number, owner: SimProcess | undefined, callback: () => void): SimEvent {
    this.#order += 1;
    const event = new SimEvent(timeMs, this.#order, owner, callback);
    this.#queue.push(event);
    return event;
  }

  #step(): void {
    const event = this.#next();
    if (event === undefined) {
      this.#stopped = true;
      return;
    }
    this.nowMs = event.timeMs;
    this.events += 1;
    if (this.events > this.#eventsMax) {
      this.fail(new Error(`more than ${this.#eventsMax} events`));
      return;
    }
    this.#time[0] = event.timeMs;
    this.note((this.#words[0] ?? 0) ^ (this.#words[1] ?? 0));
    this.note(event.owner?.number ?? 0);
    try {
      event.callback();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Skips what was cancelled, and what belongs to a process that cannot run. */
  #next(): SimEvent | undefined {
    for (let event = this.#queue.pop(); event !== undefined; event = this.#queue.pop()) {
      if (event.cancelled || event.owner?.state === 'dead') continue;
      if (event.owner?.state !== 'stopped') return event;
      event.owner.keep(event);
    }
    return undefined;
  }
}
