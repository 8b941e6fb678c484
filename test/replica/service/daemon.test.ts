/** The replica daemon as a process, from the built program: start, stop, kill, refusals. */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { IO_OP } from '../../../proto/io-codec.js';
import { ROOT } from '../../support/cluster.js';
import { Child } from '../../support/process.js';
import { IoClient } from './io-client.js';
import { RECORD } from './service-fixture.js';

const AUROCHS = path.join(ROOT, 'bin/aurochs');
const V1 = { volume: 'v1', replicaId: 'r1' };
const SIZE_BYTES = 256 * MIB;

let dir: string;
const children: Child[] = [];
const clients: IoClient[] = [];

interface StartOptions {
  readonly name?: string;
  readonly listen?: string;
  readonly data?: string;
  readonly disks?: readonly string[];
  readonly flags?: readonly string[];
}

function launch(options: StartOptions = {}): Child {
  const name = options.name ?? 'a';
  const disks = options.disks ?? [`${path.join(dir, `${name}.img`)},size=1GiB`];
  const child = new Child(AUROCHS, {
    args: [
      'replica',
      ...['--listen', options.listen ?? `unix:${path.join(dir, `${name}.sock`)}`],
      ...['--data', path.join(dir, options.data ?? name)],
      ...disks.flatMap((disk) => ['--disk', disk]),
      ...(options.flags ?? []),
    ],
    logPath: logOf(name),
  });
  children.push(child);
  return child;
}

function logOf(name: string): string {
  return path.join(dir, `${name}.log`);
}

async function start(options: StartOptions = {}): Promise<{ child: Child; address: string }> {
  const child = launch(options);
  return { child, address: await child.line('ready ') };
}

function clientOf(address: string): IoClient {
  const client = new IoClient(address);
  clients.push(client);
  return client;
}

/** A stream on v1/r1, which is created where it is missing. */
async function open(address: string, epoch: number): Promise<IoClient> {
  const client = clientOf(address);
  await client.control.createReplica({ ...V1, sizeBytes: SIZE_BYTES, membership: RECORD });
  const tenure = { ...V1, epoch, engineId: `e${epoch}` };
  await client.control.openReplica(tenure);
  await client.connect(tenure);
  return client;
}

beforeEach(async () => {
  // Disk files belong on a real file system: /tmp may be memory.
  dir = await mkdtemp('/var/tmp/aurochs-daemon-');
});
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  for (const child of children.splice(0)) await child.stop('SIGKILL');
  await rm(dir, { recursive: true, force: true });
});

describe('start and stop', () => {
  it('says where it listens, and ends with 0 on SIGTERM; data and identity stay', async () => {
    const first = await start({ listen: '127.0.0.1:0' });
    expect(first.address).toMatch(/^127\.0\.0\.1:[1-9][0-9]*$/);
    const client = await open(first.address, 1);
    const before = await client.control.identify({ volume: '' });
    await client.write(MIB, Buffer.alloc(BLOCK_SIZE, 7));
    expect(await first.child.stop('SIGTERM')).toBe(0);
    // The engine's stream ended in order, with or without the reason.
    expect(client.closed?.error?.code ?? 'CLOSED').toBe('CLOSED');

    const second = await start({ listen: '127.0.0.1:0' });
    const again = clientOf(second.address);
    const after = await again.control.identify({ volume: '' });
    expect(after.daemonId).toBe(before.daemonId);
    expect(after.incarnation).not.toBe(before.incarnation);
    expect(after.bootId).toBe(before.bootId);
    expect(after.replicas).toMatchObject([{ volume: 'v1', replicaId: 'r1', epoch: 1 }]);
    // P7: the old tenure has to open again before its streams are taken.
    const tenure = { ...V1, epoch: 1, engineId: 'e1' };
    await expect(again.connect(tenure)).rejects.toMatchObject({ code: 'STALE_EPOCH' });
    const reopened = clientOf(second.address);
    const reply = await reopened.control.openReplica(tenure);
    // Nothing is lost, but the in-flight window went with the daemon: its dirty region is compared.
    expect(reply).toMatchObject({ lossy: false, restartedDirty: true, dirtyRegions: [0] });
    await reopened.connect(tenure);
    expect((await reopened.read(MIB, BLOCK_SIZE))[100]).toBe(7);
  });

  it('SIGTERM under load: what was acknowledged is there, what was not got an error', async () => {
    const first = await start();
    const client = await open(first.address, 1);
    const acked = new Set<number>();
    let failed = 0;
    const worker = async (index: number): Promise<void> => {
      for (let i = index; failed < 16 && i < 60_000; i += 16) {
        try {
          await client.write(i * BLOCK_SIZE, stamp(i, 1));
          acked.add(i);
          if (acked.size === 500) first.child.process.kill('SIGTERM');
        } catch {
          failed += 1;
          return;
        }
      }
    };
    await Promise.all(Array.from({ length: 16 }, (_, i) => worker(i)));
    expect(await first.child.ended).toBe(0);
    const second = await start();
    const reader = await open(second.address, 2);
    const check = async (i: number): Promise<void> => {
      expect((await reader.read(i * BLOCK_SIZE, BLOCK_SIZE)).equals(stamp(i, 1))).toBe(true);
    };
    await Promise.all([...acked].map(check));
  });

  it('scenario 78: nobody reads its stdout, it serves all the same', async () => {
    const socket = path.join(dir, 'p.sock');
    const disk = `${path.join(dir, 'p.img')},size=1GiB`;
    const flags = ['--listen', `unix:${socket}`, '--data', path.join(dir, 'p'), '--disk', disk];
    const child = spawn(AUROCHS, ['replica', ...flags], { stdio: ['ignore', 'pipe', 'pipe'] });
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.stdout.destroy();
    for await (const line of createInterface({ input: child.stderr })) {
      if (line.includes('replica daemon serves')) break;
    }
    child.stderr.resume();
    const client = await open(`unix:${socket}`, 1);
    await client.write(0, Buffer.alloc(BLOCK_SIZE, 1));
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
  });

  it('metrics are served where asked', async () => {
    const { address } = await start({ flags: ['--metrics', '127.0.0.1:0'] });
    const client = await open(address, 1);
    await client.write(0, Buffer.alloc(BLOCK_SIZE, 1));
    const log = await readFile(logOf('a'), 'utf8');
    const url = /"metrics":"([^"]+)"/.exec(log)?.[1];
    const text = await (await fetch(`http://${url}/metrics`)).text();
    expect(text).toMatch(/aurochs_replica_request_seconds_count{[^}]*op="write"[^}]*} 1/);
    expect(text).toMatch(/aurochs_disk_bytes{[^}]*kind="size"[^}]*} 1073741824/);
    expect(text).toMatch(/aurochs_replica_dirty_regions{[^}]*} 1/);
  });
});

/** A block that names its place and version. */
function stamp(index: number, version: number): Buffer {
  const block = Buffer.alloc(BLOCK_SIZE, version & 0xff);
  block.writeUInt32LE(index, 0);
  block.writeUInt32LE(version, 4);
  return block;
}

describe('kill -9', () => {
  it('F1: under writes, three times: no acknowledged write is lost, none is torn', async () => {
    const blocks = 64;
    const acked = new Uint32Array(blocks);
    const started = new Uint32Array(blocks);
    let version = 0;
    for (let round = 1; round <= 3; round++) {
      const { child, address } = await start();
      const client = await open(address, round);
      const check = async (i: number): Promise<void> => {
        const bytes = await client.read(i * BLOCK_SIZE * 100, BLOCK_SIZE);
        const found = bytes.length === 0 ? 0 : bytes.readUInt32LE(4);
        expect(found).toBeGreaterThanOrEqual(acked[i] as number);
        expect(found).toBeLessThanOrEqual(started[i] as number);
        if (found > 0) expect(bytes.equals(stamp(i, found))).toBe(true);
        acked[i] = found;
      };
      await Promise.all(Array.from({ length: blocks }, (_, i) => check(i)));
      let acks = 0;
      const worker = async (first: number): Promise<void> => {
        for (let i = first; ; i = (i + 16) % blocks) {
          version += 1;
          const mine = version;
          started[i] = mine;
          try {
            await client.write(i * BLOCK_SIZE * 100, stamp(i, mine));
          } catch {
            return;
          }
          acked[i] = mine;
          acks += 1;
          if (acks === 300 * round) child.process.kill('SIGKILL');
        }
      };
      await Promise.all(Array.from({ length: 16 }, (_, i) => worker(i)));
      expect(await child.ended).toBe('SIGKILL');
      await client.close();
    }
  });

  it('P10: a killed daemon is restartedDirty but not lossy, and says where', async () => {
    const first = await start();
    const client = await open(first.address, 1);
    await client.write(65 * MIB, Buffer.alloc(BLOCK_SIZE, 1));
    await first.child.stop('SIGKILL');
    const second = await start();
    const again = clientOf(second.address);
    const reply = await again.control.openReplica({ ...V1, epoch: 2, engineId: 'e2' });
    expect(reply).toMatchObject({ lossy: false, restartedDirty: true, dirtyRegions: [1] });
    // The window lived in the daemon's memory: the dirty regions stand in for it.
    expect(reply.window).toEqual([]);
  });
});

describe('refusals', () => {
  it('scenario 14: a second daemon on the same data directory, or the same disk', async () => {
    await start({ name: 'a' });
    const sameData = launch({ name: 'b', data: 'a' });
    expect(await sameData.ended).toBe(4);
    expect(await readFile(logOf('b'), 'utf8')).toContain('error DISK_LOCKED');
    const sameDisk = launch({ name: 'c', disks: [path.join(dir, 'a.img')] });
    expect(await sameDisk.ended).toBe(4);
    expect(await readFile(logOf('c'), 'utf8')).toContain('error DISK_LOCKED');
  });

  it('the lock does not outlive kill -9', async () => {
    const first = await start();
    await first.child.stop('SIGKILL');
    await start();
  });

  it('scenario 54: a wrong disk is refused and left alone, the other one serves', async () => {
    const foreign = path.join(dir, 'foreign.img');
    const garbage = Buffer.alloc(64 * MIB, 'not ours');
    await writeFile(foreign, garbage);
    const good = `${path.join(dir, 'a.img')},size=1GiB`;
    const { address, child } = await start({ disks: [foreign, good] });
    const client = await open(address, 1);
    await client.write(0, Buffer.alloc(BLOCK_SIZE, 1));
    await client.command(IO_OP.FLUSH);
    const { disks } = await client.control.identify({ volume: '' });
    const refused = disks.find((disk) => disk.path === foreign);
    expect(refused).toMatchObject({ state: 'refused' });
    expect(refused?.reason).toMatch(/^DISK_NOT_EMPTY/);
    expect(disks.find((disk) => disk.path !== foreign)).toMatchObject({ state: 'ready' });
    await child.stop();
    expect((await readFile(foreign)).equals(garbage)).toBe(true);
    const alone = launch({ name: 'b', disks: [foreign] });
    expect(await alone.ended).not.toBe(0);
    expect(await readFile(logOf('b'), 'utf8')).toContain('error DISK_NOT_EMPTY');
  });

  it('a cluster that is not its own', async () => {
    const { child } = await start();
    await child.stop();
    const other = launch({ flags: ['--cluster', 'other'] });
    expect(await other.ended).toBe(4);
    expect(await readFile(logOf('a'), 'utf8')).toContain('error IDENTITY_MISMATCH');
  });
});

describe('compare', () => {
  const compare = async (...flags: string[]): Promise<{ code: number | string; text: string }> => {
    const logPath = logOf('compare');
    const child = new Child(AUROCHS, { args: ['replica', 'compare', ...flags], logPath });
    children.push(child);
    const code = await child.ended;
    return { code, text: child.lines.join('\n') };
  };

  it('tells equal copies from different ones, and refuses a disk in use', async () => {
    const pair = ['a', 'b'].flatMap((name) => [
      ...['--disk', path.join(dir, `${name}.img`), '--data', path.join(dir, name)],
    ]);
    const a = await start({ name: 'a' });
    const b = await start({ name: 'b' });
    const first = await open(a.address, 1);
    const second = await open(b.address, 1);
    await Promise.all([first, second].map((c) => c.write(MIB, Buffer.alloc(BLOCK_SIZE, 1))));
    expect((await compare(...pair, 'v1')).code).toBe(4);
    expect(await readFile(logOf('compare'), 'utf8')).toContain('error DISK_LOCKED');
    await Promise.all([a.child.stop(), b.child.stop()]);
    const equal = await compare(...pair, 'v1');
    expect(equal).toMatchObject({ code: 0 });
    expect(equal.text).toContain('identical: 2 of 2 copies');

    const again = await start({ name: 'b' });
    const writer = await open(again.address, 2);
    await writer.write(2 * MIB, Buffer.alloc(BLOCK_SIZE, 2));
    await again.child.stop();
    const different = await compare(...pair, 'v1', '-o', 'json');
    expect(different.code).toBe(1);
    const report = JSON.parse(different.text);
    expect(report).toMatchObject({ identical: false, differentBlocks: 1 });
    expect(report.differences[0].offsetBytes).toBe(2 * MIB);
    expect((await compare(...pair, 'nothing')).code).toBe(3);
  });
});
