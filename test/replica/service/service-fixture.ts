/** A replica service over memory disks and fake streams: everything of the daemon but network and
 *  devices. */
import { pino } from 'pino';
import type { AlignedBuffer, BufferPool } from '../../../common/block-device.js';
import type { Clock, Timer } from '../../../common/clock.js';
import { createRegistry } from '../../../common/metrics.js';
import { Semaphore } from '../../../common/semaphore.js';
import { MIB } from '../../../common/units.js';
import type { Membership } from '../../../proto/control.js';
import { ControlService } from '../../../replica/service/control-service.js';
import { DiskSet } from '../../../replica/service/disk-set.js';
import { ReplicaDirectory } from '../../../replica/service/replica-directory.js';
import { ServiceMetrics } from '../../../replica/service/service-metrics.js';
import { StreamService } from '../../../replica/service/stream-service.js';
import { FakeStream } from './fake-stream.js';
import { MemoryDisk, type MemoryHandle } from './memory-disk.js';

/** Ordinary memory that counts what is out. */
export class CountingPool implements BufferPool {
  usedBytes = 0;
  readonly limitBytes = 1024 * MIB;

  acquire(lengthBytes: number): AlignedBuffer {
    this.usedBytes += lengthBytes;
    let released = false;
    return {
      bytes: Buffer.alloc(lengthBytes, 0xdb),
      release: () => {
        if (released) throw new Error('released twice');
        released = true;
        this.usedBytes -= lengthBytes;
      },
    };
  }
}

/** Time that the test turns. */
export class HandClock implements Clock {
  #now = 0;
  readonly #timers = new Set<{ at: number; callback: () => void }>();

  nowMs(): number {
    return this.#now;
  }

  wallMs(): number {
    return 0;
  }

  after(delayMs: number, callback: () => void): Timer {
    const timer = { at: this.#now + delayMs, callback };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  advance(ms: number): void {
    this.#now += ms;
    for (const timer of [...this.#timers]) {
      if (timer.at > this.#now) continue;
      this.#timers.delete(timer);
      timer.callback();
    }
  }
}

export const SIZE_BYTES = 256 * MIB;
export const RECORD: Membership = {
  epoch: 0,
  generation: 1,
  engineId: '',
  era: 0,
  members: [{ replicaId: 'r1', address: 'unix:/a', state: 'in-sync' }],
};

export interface Fixture {
  readonly pool: CountingPool;
  readonly clock: HandClock;
  readonly disks: readonly MemoryDisk[];
  readonly control: ControlService;
  readonly streams: StreamService;
  readonly memory: Semaphore;
  readonly registry: ReturnType<typeof createRegistry>;
  /** the only replica of volume v1 */
  handle(): MemoryHandle;
  connect(): FakeStream;
  /** opens v1/r1 with the epoch and brings a stream to where it serves */
  serve(epoch?: number, engineId?: string): Promise<FakeStream>;
}

export async function createFixture(
  options: {
    disks?: number;
    memoryBytes?: number;
    windowBytes?: number;
    windowRequests?: number;
    streamsMax?: number;
    endOfTurn?: (callback: () => void) => void;
  } = {},
): Promise<Fixture> {
  const pool = new CountingPool();
  const clock = new HandClock();
  const log = pino({ level: 'silent' });
  const count = options.disks ?? 1;
  const disks = Array.from({ length: count }, (_, i) => new MemoryDisk(`d${i + 1}`, pool));
  const set = DiskSet.of(disks);
  const replicas = new ReplicaDirectory();
  const identity = { daemonId: 'n1', clusterId: 'c1', incarnation: 'i1', bootId: 'b1' };
  const startedMs = clock.nowMs();
  const control = new ControlService({ identity, disks: set, replicas, clock, startedMs, log });
  const registry = createRegistry('replica');
  const memory = new Semaphore('memory', options.memoryBytes ?? 48 * MIB, 64);
  const streams: StreamService = new StreamService({
    replicas,
    memory,
    pool,
    metrics: new ServiceMetrics(registry, {
      disks: () => set.samples(),
      dirtyRegions: () => set.dirtyRegions(),
      replicas: () => replicas.size,
      streams: () => streams.count,
      requestsInFlight: () => 0,
    }),
    clock,
    endOfTurn: options.endOfTurn ?? ((callback) => void setImmediate(callback)),
    log,
    streamsMax: options.streamsMax ?? 64,
    ...(options.windowBytes === undefined ? {} : { windowBytes: options.windowBytes }),
    ...(options.windowRequests === undefined ? {} : { windowRequests: options.windowRequests }),
  });
  const connect = (): FakeStream => connectTo(streams);
  await control.createReplica({
    volume: 'v1',
    replicaId: 'r1',
    sizeBytes: SIZE_BYTES,
    membership: RECORD,
  });
  return {
    pool,
    clock,
    disks,
    control,
    streams,
    memory,
    registry,
    handle: () => {
      const disk = disks.find((d) => d.handles.has('v1'));
      if (disk === undefined) throw new Error('volume v1 is on no disk');
      return disk.handle('v1');
    },
    connect,
    serve: async (epoch = 1, engineId = 'e1') => {
      await control.openReplica({ volume: 'v1', replicaId: 'r1', epoch, engineId });
      const stream = connect();
      stream.say({ protocolVersion: 1, volume: 'v1', replicaId: 'r1', epoch, engineId });
      await turns();
      return stream;
    },
  };
}

function connectTo(streams: StreamService): FakeStream {
  const stream = new FakeStream();
  stream.handlers = streams.accept(stream);
  return stream;
}

/** Lets everything run that is ready: a few turns of the event loop. */
export async function turns(count = 4): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}
