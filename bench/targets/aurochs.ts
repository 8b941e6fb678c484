/** Aurochs itself: the real daemons, started through bin/aurochs as a user starts them. */
import { createServer } from 'node:net';
import { join } from 'node:path';
import { StorageError } from '../../common/errors.js';
import { GIB } from '../../common/units.js';
import type { MeasuredProcess, RunningTarget, Target, TargetContext } from './target.js';

export function aurochsTarget(copies: 1 | 3): Target {
  return {
    name: `aurochs-${copies}`,
    copies,
    commands: [],
    note:
      'real daemons over loopback, one disk file per daemon. Write acknowledged by all copies, ' +
      'checksummed; flush is a device flush and a synced metadata batch on all',
    fioCopies: 1,
    measures: () => true,
    start: (context) => startAurochs(context, copies),
  };
}

async function startAurochs(context: TargetContext, copies: number): Promise<RunningTarget> {
  const { children, directory, sizeBytes } = context;
  const program = join(context.root, 'bin', 'aurochs');
  // Quiet logs: what is measured is the data path.
  const env = { AUROCHS_LOG: 'warn', ...context.env };
  const processes: MeasuredProcess[] = [];
  const addresses: string[] = [];
  for (let index = 1; index <= copies; index += 1) {
    const role = `replica${index}`;
    const address = `127.0.0.1:${await freePort()}`;
    const disk = `${join(directory, `disk${index}`)},size=${sizeBytes + GIB}`;
    const data = join(directory, `data${index}`);
    const replica = await children.start({
      name: `aurochs-${copies}-${role}`,
      command: program,
      args: ['replica', '--listen', address, '--data', data, '--disk', disk],
      env,
      ready: { line: /^ready\b(.*)\n/m },
    });
    processes.push({ role, pid: replica.pid });
    addresses.push(address);
  }
  const engine = await children.start({
    name: `aurochs-${copies}-engine`,
    command: program,
    args: [
      ...['engine', '--volume', 'bench', '--size', String(sizeBytes)],
      ...addresses.flatMap((address) => ['--replica', address]),
      ...['--nbd', `unix:${join(directory, 'nbd.sock')}`],
    ],
    env,
    ready: { line: /^ready (nbd\S+)\n/m },
  });
  return {
    endpoint: { kind: 'nbd', uri: engine.readyText },
    processes: [{ role: 'engine', pid: engine.pid }, ...processes],
  };
}

/** A loopback port that was free a moment ago. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => {
        if (address !== null && typeof address === 'object') resolve(address.port);
        else reject(new StorageError('INTERNAL', 'no TCP address'));
      });
    });
  });
}
