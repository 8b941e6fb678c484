/**
 * Hosts and processes of a simulated world.
 *
 * A host has one monotonic clock with a rate and an origin of its own, and a kernel that outlives
 * its processes until the power goes; a boot id says which kernel. A process runs, is stopped
 * (SIGSTOP: its clock goes on, its events wait), or is dead, which it stays: a restart is another
 * process.
 */
import assert from 'node:assert';
import type { Clock, Timer } from '../../../common/clock.js';
import type { SimEvent } from './event-queue.js';
import type { Random } from './random.js';
import type { Scheduler } from './scheduler.js';

export class SimHost {
  readonly processes = new Set<SimProcess>();
  #pids = 0;
  bootId: string;
  up = true;
  /** wall time, for what must not depend on it (scenario 75) */
  wallOffsetMs: number;
  readonly #rate: number;
  readonly #originMs: number;
  readonly #random: Random;

  constructor(
    readonly scheduler: Scheduler,
    readonly name: string,
    random: Random,
  ) {
    this.#random = random.fork(`host ${name}`);
    this.#rate = 1 + this.#random.between(-2e-4, 2e-4);
    this.#originMs = this.#random.between(1_000, 1e9);
    this.wallOffsetMs = this.#random.between(0, 2e12);
    this.bootId = this.#random.hex(16);
  }

  monotonicMs(): number {
    return this.#originMs + this.scheduler.nowMs * this.#rate;
  }

  /** Simulated time that a span of this host's clock takes. */
  scheduled(spanMs: number): number {
    return spanMs / this.#rate;
  }

  start(name: string): SimProcess {
    assert(this.up, `host ${this.name} has no power`);
    this.#pids += 1;
    const process = new SimProcess(this, name, this.#pids);
    this.processes.add(process);
    return process;
  }

  /** Every process is gone at once, without a word to anybody. */
  losePower(): void {
    this.up = false;
    for (const process of [...this.processes]) process.die('power');
  }

  boot(): void {
    this.up = true;
    this.bootId = this.#random.hex(16);
  }
}

export type Death = 'kill' | 'power' | 'exit';

export class SimProcess {
  readonly number: number;
  readonly startedMs: number;
  state: 'running' | 'stopped' | 'dead' = 'running';
  readonly clock: Clock;
  readonly #waiting: SimEvent[] = [];
  readonly #onDeath: Array<(how: Death) => void> = [];
  readonly #turn: Array<() => void> = [];

  constructor(
    readonly host: SimHost,
    readonly name: string,
    readonly pid: number,
  ) {
    this.startedMs = host.scheduler.nowMs;
    this.number = hash(name);
    this.clock = new ProcessClock(this);
  }

  get alive(): boolean {
    return this.state !== 'dead';
  }

  get scheduler(): Scheduler {
    return this.host.scheduler;
  }

  /** A turn of this process at a simulated time. */
  post(timeMs: number, callback: () => void): SimEvent {
    return this.scheduler.post(this, timeMs, callback);
  }

  /** What setImmediate is to a real process: after everything that arrives in this turn. */
  readonly endOfTurn = (callback: () => void): void => {
    this.#turn.push(callback);
    if (this.#turn.length === 1) this.post(this.scheduler.nowMs, () => this.#endTurn());
  };

  #endTurn(): void {
    for (const callback of this.#turn.splice(0)) callback();
  }

  stop(): void {
    if (this.state === 'running') this.state = 'stopped';
  }

  continue(): void {
    if (this.state !== 'stopped') return;
    this.state = 'running';
    const { nowMs } = this.scheduler;
    for (const event of this.#waiting.splice(0)) {
      if (!event.cancelled) this.post(nowMs, event.callback);
    }
  }

  /** For the scheduler: an event that came while the process was stopped. */
  keep(event: SimEvent): void {
    this.#waiting.push(event);
  }

  /** The kernel's part of a death: locks, connections, devices. */
  onDeath(clean: (how: Death) => void): void {
    this.#onDeath.push(clean);
  }

  die(how: Death): void {
    if (this.state === 'dead') return;
    this.state = 'dead';
    this.host.processes.delete(this);
    this.#waiting.length = 0;
    for (const clean of this.#onDeath.splice(0)) clean(how);
  }
}

class ProcessClock implements Clock {
  constructor(readonly process: SimProcess) {}

  nowMs(): number {
    return this.process.host.monotonicMs();
  }

  wallMs(): number {
    const { host } = this.process;
    return host.wallOffsetMs + host.scheduler.nowMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    const { process } = this;
    const { scheduler, host } = process;
    return process.post(scheduler.nowMs + host.scheduled(Math.max(0, delayMs)), callback);
  }
}

function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) {
    value = Math.imul(value ^ text.charCodeAt(at), 0x01000193);
  }
  return value >>> 0;
}
