/** A whole engine, from start to stop, with daemons in memory and time in the test's hands. */
import { pino } from 'pino';
import { expect } from 'vitest';
import type { StorageError } from '../../common/errors.js';
import { Registry } from '../../common/metrics.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { Engine } from '../../engine/engine.js';
import {
  DEFAULT_TUNING,
  type EngineConfig,
  type EngineTuning,
} from '../../engine/engine-config.js';
import type { EngineEnvironment } from '../../engine/engine-environment.js';
import type { ProcessFacts, ProcessTable } from '../../engine/engine-life.js';
import { createBufferPool } from '../../native/index.js';
import { ManualClock } from '../common/manual-clock.js';
import { fill, SIZE, turns } from './engine-bed.js';
import { FakeDaemon } from './fake-daemon.js';
import { MemoryNetwork } from './memory-network.js';

/** Processes of this host, as the test says. */
export class FakeProcesses implements ProcessTable {
  readonly running = new Map<number, string>();

  constructor(readonly facts: ProcessFacts | undefined) {}

  self(): ProcessFacts | undefined {
    return this.facts;
  }

  startTicks(pid: number): string | 'gone' | undefined {
    return this.running.get(pid) ?? 'gone';
  }
}

export const processFacts = (pid: number): ProcessFacts => ({
  ...{ boot: 'b'.repeat(32), namespace: '4026531836', pid, startTicks: `${pid}00` },
});

export class EngineWorld {
  readonly clock = new ManualClock();
  readonly network: MemoryNetwork;
  /** why engines ended by themselves */
  readonly ended: StorageError[] = [];
  constructor(
    readonly addresses: readonly string[] = ['n1', 'n2', 'n3'],
    readonly sizeBytes = SIZE,
    readonly daemons = new Map<string, FakeDaemon>(),
  ) {
    this.network = new MemoryNetwork(this.clock, daemons);
    if (daemons.size === 0) for (const address of addresses) this.addDaemon(address);
  }

  /** Another host with the same daemons, whose engine knows nothing of this one's. */
  other(): EngineWorld {
    return new EngineWorld(this.addresses, this.sizeBytes, this.daemons);
  }

  /** This host is gone: its engine is never heard of again. */
  vanish(): void {
    for (const daemon of this.daemons.values()) daemon.replica.drop();
  }

  addDaemon(address: string): FakeDaemon {
    const daemon = new FakeDaemon(address, this.sizeBytes);
    this.daemons.set(address, daemon);
    return daemon;
  }

  daemon(address: string): FakeDaemon {
    const found = this.daemons.get(address);
    if (found === undefined) throw new Error(`no daemon ${address}`);
    return found;
  }

  environment(processes: ProcessTable = new FakeProcesses(undefined)): EngineEnvironment {
    return {
      ...{ clock: this.clock, network: this.network, processes },
      log: pino({ level: process.env['TEST_LOG'] ?? 'silent' }),
      registry: new Registry(),
      endOfTurn: setImmediate,
      createPool: (limitBytes) => createBufferPool({ limitBytes }),
      randomId: (prefix) => `${prefix}-${nextId()}`,
    };
  }

  config(tuning: Partial<EngineTuning> = {}, other: Partial<EngineConfig> = {}): EngineConfig {
    return {
      ...{ volume: 'v', sizeBytes: this.sizeBytes, replicas: this.addresses, salvage: false },
      tls: undefined,
      insecure: true,
      tuning: { ...DEFAULT_TUNING, ...tuning },
      ...other,
    };
  }

  /** Starts an engine; time goes on meanwhile. @throws StorageError why it cannot serve */
  async startEngine(
    options: {
      readonly tuning?: Partial<EngineTuning>;
      readonly config?: Partial<EngineConfig>;
      readonly processes?: ProcessTable;
    } = {},
  ): Promise<Engine> {
    const config = this.config(options.tuning, options.config);
    return await this.during(
      Engine.start(config, this.environment(options.processes), {
        onEnded: (error) => this.ended.push(error),
      }),
    );
  }

  /** Time goes on until `work` has ended, at most `maxMs` of it. */
  async during<T>(work: Promise<T>, maxMs = 120_000): Promise<T> {
    let open = true;
    const settled = work.finally(() => {
      open = false;
    });
    settled.catch(() => undefined);
    for (let ms = 0; ms < maxMs; ms += STEP_MS) {
      await turns(TURNS);
      if (!open) return await settled;
      this.clock.advance(STEP_MS);
    }
    throw new Error(`not done after ${maxMs} ms`);
  }

  /** Time goes on for so long. */
  async run(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= STEP_MS) {
      await turns(TURNS);
      this.clock.advance(Math.min(STEP_MS, left));
    }
    await turns(TURNS);
  }

  /** Time goes on until the condition holds. */
  async until(condition: () => boolean, maxMs = 120_000): Promise<void> {
    for (let ms = 0; ms < maxMs; ms += STEP_MS) {
      await turns(TURNS);
      if (condition()) return;
      this.clock.advance(STEP_MS);
    }
    throw new Error(`not so after ${maxMs} ms: ${condition}`);
  }
}

/** One block, filled with the value. */
export const write = (engine: Engine, block: number, value: number): Promise<void> =>
  engine.volume.write(block * BLOCK_SIZE, BLOCK_SIZE, [fill(BLOCK_SIZE, value)], { fua: false });

/** First byte of the block. */
export async function read(engine: Engine, block: number): Promise<number | undefined> {
  const result = await engine.volume.read(block * BLOCK_SIZE, BLOCK_SIZE);
  const value = result.chunks[0]?.[0];
  result.release();
  return value;
}

export const eventsOf = (engine: Engine): string[] => engine.events.events().map((e) => e.kind);
/** Addresses of the in-sync members, as one daemon has stored it. */
export const inSync = (world: EngineWorld, address: string): string[] =>
  world
    .daemon(address)
    .membership.members.filter((m) => m.state === 'in-sync')
    .map((m) => m.address);

/** Nothing is open, nobody waits for a timer (one that looks at reads ends by itself). */
export async function expectNothingLeft(world: EngineWorld): Promise<void> {
  await world.run(2_000);
  expect(world.network.openStreams).toBe(0);
  expect(world.network.openControls).toBe(0);
  expect(world.clock.pending).toBe(0);
}

let ids = 0;
const nextId = (): number => {
  ids += 1;
  return ids;
};

const STEP_MS = 50;
/** Event-loop turns between two steps of the clock: enough for a call and what it leads to. */
const TURNS = 6;
