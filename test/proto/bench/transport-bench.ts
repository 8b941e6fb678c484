/**
 * One client process and three server processes, writes fanned out to all three, as engine and
 * replicas do it but without disks and checksums: what the transport alone allows. Run from dist:
 *   node dist/test/proto/bench/transport-bench.js [seconds] [rounds] [case] [mode]
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import {
  decodeIoBatch,
  decodeIoReplyBatch,
  IO_OP,
  IoBatchEncoder,
  IoReplyEncoder,
} from '../../../proto/io-codec.js';
import { connect, type Mode, type Send, serve } from './transports.js';

const REPLICAS = 3;
const MODES: readonly Mode[] = ['sockets', 'endpoint', 'grpc-batched', 'grpc-per-write'];
const CASES = [
  { name: 'write 4 KiB, depth 1', depth: 1, bytes: 4096, read: false },
  { name: 'write 4 KiB, depth 64', depth: 64, bytes: 4096, read: false },
  { name: 'write 1 MiB, depth 4', depth: 4, bytes: 1048576, read: false },
  { name: 'read 4 KiB, depth 64', depth: 64, bytes: 4096, read: true },
] as const;

const noChecksum = (): void => undefined;

async function serveForever(mode: Mode): Promise<void> {
  const data = Buffer.alloc(1048576, 7);
  const checksums = Buffer.alloc(1024);
  const port = await serve(mode, (send) => {
    const encoder = new IoReplyEncoder();
    const visitor = {
      onHello: () => undefined,
      onAckedThrough: () => undefined,
      onRequest: (view: { op: number; id: number; lengthBytes: number }) => {
        if (view.op === IO_OP.READ) {
          const blocks = view.lengthBytes / 4096;
          const payload = data.subarray(0, view.lengthBytes);
          encoder.addRead(view.id, checksums.subarray(0, blocks * 4), payload);
        } else encoder.add(view.id, 0);
        if (mode === 'grpc-per-write') send(encoder.finish());
      },
    };
    let scheduled = false;
    return (message) => {
      decodeIoBatch(message, visitor);
      if (encoder.replies === 0 || scheduled) return;
      scheduled = true;
      setImmediate(() => {
        scheduled = false;
        send(encoder.finish());
      });
    };
  });
  let before = process.cpuUsage();
  process.on('message', () => {
    const { user, system } = process.cpuUsage(before);
    before = process.cpuUsage();
    process.send?.({ cpuUs: user + system });
  });
  process.on('disconnect', () => process.exit(0));
  process.send?.(port);
}

class Load {
  completed = 0;
  #nextId = 1;
  #inFlight = new Map<number, number>();
  #toStart: number;
  readonly #encoder = new IoBatchEncoder({ checksumBlocks: noChecksum });
  readonly #payload: readonly Buffer[];
  #scheduled = false;
  #turn = 0;
  stopped = false;

  constructor(
    readonly mode: Mode,
    readonly given: (typeof CASES)[number],
    readonly sends: Send[],
  ) {
    this.#payload = [Buffer.alloc(given.bytes, 3)];
    this.#toStart = given.depth;
  }

  readonly onMessage = (message: Buffer): void => {
    decodeIoReplyBatch(message, this.#visitor);
    this.schedule();
  };

  readonly #visitor = {
    onHello: () => undefined,
    onReply: (view: { id: number }) => {
      const left = (this.#inFlight.get(view.id) ?? 0) - 1;
      if (left > 0) {
        this.#inFlight.set(view.id, left);
        return;
      }
      this.#inFlight.delete(view.id);
      this.completed += 1;
      this.#toStart += 1;
    },
  };

  schedule(): void {
    if (this.#scheduled || this.#toStart === 0 || this.stopped) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#start();
    });
  }

  #start(): void {
    const { bytes, read } = this.given;
    for (; this.#toStart > 0; this.#toStart--) {
      const id = this.#nextId++;
      const fields = { flags: 0, id, offsetBytes: (id % 4096) * 1048576, lengthBytes: bytes };
      this.#inFlight.set(id, read ? 1 : REPLICAS);
      if (read) this.#encoder.add({ ...fields, op: IO_OP.READ, arg: 0 });
      else this.#encoder.addWrite(fields, this.#payload);
      if (this.mode === 'grpc-per-write' || this.#encoder.lengthBytes > 262144) this.#flush();
    }
    if (this.#encoder.requests > 0) this.#flush();
  }

  #flush(): void {
    if (this.given.read) {
      this.#turn += 1;
      this.sends[this.#turn % REPLICAS]?.(this.#encoder.finish(0, 1));
      return;
    }
    const message = this.#encoder.finish(0, REPLICAS);
    for (const send of this.sends) send(message);
  }
}

async function measure(mode: Mode, given: (typeof CASES)[number], seconds: number) {
  const file = fileURLToPath(import.meta.url);
  const children = Array.from({ length: REPLICAS }, () => fork(file, ['serve', mode]));
  const ports = await Promise.all(
    children.map(
      (child) => new Promise<number>((resolve) => child.once('message', (m) => resolve(Number(m)))),
    ),
  );
  const sends: Send[] = [];
  const load = new Load(mode, given, sends);
  for (const port of ports) sends.push(await connect(mode, port, load.onMessage));
  load.schedule();
  await delay(0.5);
  await serverCpu(children);
  const before = { count: load.completed, at: performance.now(), cpu: process.cpuUsage() };
  await delay(seconds);
  const elapsed = (performance.now() - before.at) / 1000;
  const rate = (load.completed - before.count) / elapsed;
  const cpu = process.cpuUsage(before.cpu);
  const count = load.completed - before.count;
  load.stopped = true;
  const serverUs = (await serverCpu(children)) / count;
  for (const child of children) child.disconnect();
  return { rate, clientUs: (cpu.user + cpu.system) / count, serverUs };
}

/** CPU microseconds that the servers used since the last call, together. */
async function serverCpu(children: readonly ChildProcess[]): Promise<number> {
  const used = await Promise.all(
    children.map(
      (child) =>
        new Promise<number>((resolve) => {
          child.once('message', (m) => resolve((m as { cpuUs: number }).cpuUs));
          child.send('cpu');
        }),
    ),
  );
  return used.reduce((sum, each) => sum + each, 0);
}

function delay(seconds: number): Promise<void> {
  return new Promise((resolve) => {
    const end = performance.now() + seconds * 1000;
    const timer = setInterval(() => {
      if (performance.now() < end) return;
      clearInterval(timer);
      resolve();
    }, 10);
  });
}

if (process.argv[2] === 'serve') await serveForever(process.argv[3] as Mode);
else {
  const seconds = Number(process.argv[2] ?? 2);
  process.on('uncaughtException', (error) => {
    if (!String(error).includes('lost')) throw error;
  });
  const rounds = Number(process.argv[3] ?? 3);
  const only = process.argv[4];
  const modes = MODES.filter((mode) => mode === (process.argv[5] ?? mode));
  console.log(
    'best of rounds, each number by itself: rate, CPU us per operation of client, servers',
  );
  for (const given of CASES) {
    if (only !== undefined && !given.name.includes(only)) continue;
    const best = new Map<Mode, Awaited<ReturnType<typeof measure>>>();
    for (let round = 0; round < rounds; round++) {
      for (const mode of modes) {
        const { rate, clientUs, serverUs } = await measure(mode, given, seconds);
        const before = best.get(mode) ?? { rate: 0, clientUs: Infinity, serverUs: Infinity };
        best.set(mode, {
          rate: Math.max(before.rate, rate),
          clientUs: Math.min(before.clientUs, clientUs),
          serverUs: Math.min(before.serverUs, serverUs),
        });
      }
    }
    for (const [mode, result] of best) {
      const column = (us: number): string => us.toFixed(1).padStart(8);
      const cpu = `${column(result.clientUs)} ${column(result.serverUs)}`;
      const rate = result.rate.toFixed(0).padStart(8);
      console.log(`${given.name.padEnd(22)} ${mode.padEnd(15)} ${rate}/s ${cpu}`);
    }
  }
  process.exit(0);
}
