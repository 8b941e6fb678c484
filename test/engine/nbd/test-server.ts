/** A server for tests: quiet, on a socket of its own, gone afterwards. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import { SystemClock } from '../../../common/clock.js';
import type { NbdExport, NbdLimits } from '../../../engine/nbd/server.js';
import { NbdServer, type NbdServerOptions } from '../../../engine/nbd/server.js';
import { MemoryVolume } from '../../support/memory-volume.js';

export interface TestServer {
  readonly server: NbdServer;
  readonly volume: MemoryVolume;
  readonly directory: string;
  readonly path: string;
  /** lines of the log, as objects */
  readonly log: Array<Record<string, unknown>>;
  stop(): Promise<void>;
}

export interface TestServerOptions {
  readonly volume?: MemoryVolume;
  readonly sizeBytes?: number;
  readonly exports?: readonly NbdExport[];
  readonly limits?: Partial<NbdLimits>;
  readonly clock?: NbdServerOptions['clock'];
}

/** Log lines into an array. */
export function memoryLog(lines: Array<Record<string, unknown>>): NbdServerOptions['log'] {
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done): void {
      lines.push(JSON.parse(chunk.toString()) as Record<string, unknown>);
      done();
    },
  });
  return pino({ level: 'info' }, stream);
}

export async function startServer(options: TestServerOptions = {}): Promise<TestServer> {
  const directory = await mkdtemp(join(tmpdir(), 'aurochs-nbd-'));
  const path = join(directory, 'nbd.sock');
  const volume = options.volume ?? new MemoryVolume({ sizeBytes: options.sizeBytes ?? 16 << 20 });
  const log: Array<Record<string, unknown>> = [];
  const server = await NbdServer.listen({
    exports: options.exports ?? [{ name: 'v1', volume, description: 'a test volume' }],
    address: { path },
    limits: options.limits ?? {},
    log: memoryLog(log),
    clock: options.clock ?? new SystemClock(),
  });
  const stop = async (): Promise<void> => {
    await server.close({ drain: false });
    await rm(directory, { recursive: true, force: true });
  };
  return { server, volume, directory, path, log, stop };
}
