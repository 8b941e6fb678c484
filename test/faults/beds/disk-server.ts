/**
 * A process that serves one DiskVolume over NBD: `node disk-server.js SOCKET SIZE SEED`, started
 * with an IPC channel, over which the test turns the faults on and off.
 *
 * A process of its own, so that a test that waits on the disk does not wait on itself; it ends with
 * its parent.
 */
import { SystemClock } from '../../../common/clock.js';
import { createLogger } from '../../../common/log.js';
import { NbdServer } from '../../../engine/nbd/server.js';
import type { Fate } from './cached-disk.js';
import type { DiskFault } from './disk-faults.js';
import { DiskVolume } from './disk-volume.js';

/** What the test may ask for; each is answered with the function's result. */
export interface DiskRequests {
  arm(fault: DiskFault): number;
  disarm(id: number): void;
  counts(): DiskVolume['counts'];
  freeze(): void;
  powerOff(): void;
  powerOn(fate: Fate): void;
  release(): void;
  lieAboutFlush(lies: boolean): void;
  peek(offsetBytes: number, lengthBytes: number): Buffer;
  poke(offsetBytes: number, bytes: Uint8Array): void;
  save(name: string): void;
  restore(name: string): void;
}

export interface DiskRequestMessage {
  readonly id: number;
  readonly call: keyof DiskRequests;
  readonly args: readonly unknown[];
}

export interface DiskReplyMessage {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}

function requestsOf(volume: DiskVolume): DiskRequests {
  const { disk, faults } = volume;
  return {
    arm: (fault) => faults.arm(fault),
    disarm: (id) => faults.disarm(id),
    counts: () => volume.counts,
    freeze: () => volume.freeze(),
    powerOff: () => volume.powerOff(),
    powerOn: (fate) => volume.powerOn(fate),
    release: () => volume.release(),
    lieAboutFlush: (lies) => {
      disk.liesAboutFlush = lies;
    },
    peek: (offsetBytes, lengthBytes) => disk.read(offsetBytes, lengthBytes),
    poke: (offsetBytes, bytes) => disk.poke(offsetBytes, Buffer.from(bytes)),
    save: (name) => disk.save(name),
    restore: (name) => disk.restore(name),
  };
}

function answer(requests: DiskRequests, message: DiskRequestMessage): DiskReplyMessage {
  const { id, call, args } = message;
  try {
    const act = requests[call] as (...given: unknown[]) => unknown;
    return { id, value: act(...args) };
  } catch (error) {
    return { id, error: String(error) };
  }
}

async function serve(path: string, sizeBytes: number, seed: number): Promise<void> {
  const clock = new SystemClock();
  const volume = new DiskVolume(sizeBytes, clock, seed);
  const log = createLogger('disk-server');
  // That requests fail is what it is there for.
  log.level = 'error';
  const exports = [{ name: '', volume }];
  await NbdServer.listen({ exports, address: { path }, log, clock });
  const requests = requestsOf(volume);
  process.on('message', (message) => {
    process.send?.(answer(requests, message as DiskRequestMessage));
  });
  process.on('disconnect', () => process.exit(0));
  process.send?.({ id: 0 });
}

const [path = '', size = '', seed = ''] = process.argv.slice(2);
await serve(path, Number(size), Number(seed));
