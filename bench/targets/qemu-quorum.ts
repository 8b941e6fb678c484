/** QEMU's own replication: quorum in one qemu-nbd over three qemu-nbd with a raw file each. */
import { join } from 'node:path';
import type { RunningChild } from '../child-registry.js';
import { allocateFiles } from './raw.js';
import type { MeasuredProcess, RunningTarget, Target, TargetContext } from './target.js';

/** as many clients as the widest case has, and some to spare */
const CLIENTS_MAX = '64';

export function qemuQuorumTarget(): Target {
  return {
    name: 'qemu-quorum-3',
    copies: 3,
    commands: ['qemu-nbd'],
    note:
      'qemu-nbd with driver=quorum (vote-threshold=3, read-pattern=fifo) over three qemu-nbd on ' +
      'raw files (cache=none, aio=io_uring or native), unix sockets. Write acknowledged by all ' +
      'copies; flush goes to one copy after the other; reads come from the first copy',
    fioCopies: 1,
    measures: () => true,
    start: startQuorum,
  };
}

async function startQuorum(context: TargetContext): Promise<RunningTarget> {
  const { directory, sizeBytes } = context;
  const processes: MeasuredProcess[] = [];
  const options = ['driver=quorum', 'vote-threshold=3', 'read-pattern=fifo'];
  for (const [index, file] of (await allocateFiles(directory, { count: 3, sizeBytes })).entries()) {
    const socket = join(directory, `copy${index + 1}.sock`);
    const child = await startCopy(context, { index, file, socket });
    processes.push({ role: `replica${index + 1}`, pid: child.pid });
    const prefix = `children.${index}`;
    options.push(`${prefix}.driver=nbd`, `${prefix}.server.type=unix`);
    options.push(`${prefix}.server.path=${socket}`);
  }
  const socket = join(directory, 'nbd.sock');
  const engine = await context.children.start({
    name: 'qemu-quorum',
    command: 'qemu-nbd',
    args: [
      ...['--persistent', `--shared=${CLIENTS_MAX}`, '--socket', socket, '--cache=none'],
      ...['--image-opts', options.join(',')],
    ],
    ready: { socket },
  });
  return {
    endpoint: { kind: 'nbd', uri: `nbd+unix:///?socket=${socket}` },
    processes: [{ role: 'engine', pid: engine.pid }, ...processes],
  };
}

/** io_uring where this QEMU was built with it, else Linux AIO. */
async function startCopy(
  context: TargetContext,
  copy: { index: number; file: string; socket: string },
): Promise<RunningChild> {
  const start = (aio: string): Promise<RunningChild> =>
    context.children.start({
      name: `qemu-copy${copy.index + 1}`,
      command: 'qemu-nbd',
      args: [
        ...['--persistent', '--shared=4', '--socket', copy.socket, '--format=raw'],
        ...['--cache=none', `--aio=${aio}`, copy.file],
      ],
      ready: { socket: copy.socket },
    });
  try {
    return await start('io_uring');
  } catch {
    return await start('native');
  }
}
