/** The floor: the least Node program of the same shape, of which Aurochs is to reach a fraction. */
import { join } from 'node:path';
import { allocateFiles } from './raw.js';
import type { MeasuredProcess, RunningTarget, Target, TargetContext } from './target.js';

export function floorTarget(copies: 1 | 3): Target {
  return {
    name: `floor-${copies}`,
    copies,
    commands: [],
    note:
      'least Node program: NBD engine, plain TCP to one process per copy, native direct I/O. ' +
      'Write acknowledged by all copies; flush is fdatasync on all; nothing is checked or recorded',
    fioCopies: 1,
    measures: () => true,
    start: (context) => startFloor(context, copies),
  };
}

async function startFloor(context: TargetContext, copies: number): Promise<RunningTarget> {
  const { children, directory, sizeBytes } = context;
  const floor = join(context.root, 'dist', 'bench', 'floor');
  const env = context.env ?? {};
  const processes: MeasuredProcess[] = [];
  const addresses: string[] = [];
  for (const [index, file] of (
    await allocateFiles(directory, { count: copies, sizeBytes })
  ).entries()) {
    const role = `replica${index + 1}`;
    const replica = await children.start({
      name: `floor-${copies}-${role}`,
      command: process.execPath,
      args: [join(floor, 'floor-replica.js'), '--file', file],
      env,
      ready: { line: /^ready (\S+)\n/m },
    });
    processes.push({ role, pid: replica.pid });
    addresses.push(replica.readyText);
  }
  const engine = await children.start({
    name: `floor-${copies}-engine`,
    command: process.execPath,
    args: [
      join(floor, 'floor-engine.js'),
      ...['--socket', join(directory, 'nbd.sock'), '--size', String(sizeBytes)],
      ...addresses.flatMap((address) => ['--replica', address]),
    ],
    env,
    ready: { line: /^ready (\S+)\n/m },
  });
  return {
    endpoint: { kind: 'nbd', uri: engine.readyText },
    processes: [{ role: 'engine', pid: engine.pid }, ...processes],
  };
}
