/** Aurochs itself: the real daemons, started through bin/aurochs as a user starts them. */
import { join } from 'node:path';
import { GIB } from '../../common/units.js';
import { freePort } from '../free-port.js';
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
