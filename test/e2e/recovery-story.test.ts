/** Recovery on real processes, as a person sees it: explain, replica replace, scrub, metrics. */
import { open, readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { Cluster, ROOT } from '../support/cluster.js';
import { missing } from '../support/host.js';
import { NbdLoadClient } from '../support/load-client.js';
import { NBD, SimpleNbd } from '../support/simple-nbd.js';
import { StampedLoad } from '../support/stamped-load.js';

const lacks = missing('nbdinfo');
const MIB = 1024 ** 2;
const BLOCK = 4096;

interface Explained {
  readonly story: {
    readonly state: string;
    readonly sentence: string;
    readonly todo: readonly string[];
    readonly replicas: ReadonlyArray<{
      readonly replicaId: string;
      readonly address: string;
      readonly situation: string;
      readonly chain: ReadonlyArray<{ readonly kind: string; readonly generation: number }>;
    }>;
  };
}

/** The story of the copy on daemon `index`. */
async function explain(cluster: Cluster, index: number) {
  const { story }: Explained = JSON.parse(await cluster.ask('explain', 'vol', '-o', 'json'));
  const replica = story.replicas.find(({ address }) => address === cluster.address(index));
  if (replica === undefined) throw new Error(`no replica at ${cluster.address(index)}`);
  return { story, replica, kinds: replica.chain.map(({ kind }) => kind) };
}

async function write(cluster: Cluster, seed: number, count: number): Promise<StampedLoad> {
  const connect = () => NbdLoadClient.connect(cluster.socket);
  const load = new StampedLoad({ seed, bytes: 64 * MIB, connect });
  await load.start();
  await load.more(count);
  await load.stop();
  return load;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function scrape(port: number): Promise<string> {
  return (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
}

/** Names as Prometheus wants them, each told of in the document. */
async function checkMetrics(port: number): Promise<void> {
  const text = await scrape(port);
  const manual = await readFile(path.join(ROOT, 'docs/operating.md'), 'utf8');
  const types = [...text.matchAll(/^# TYPE (aurochs_\S+) (\S+)$/gm)];
  expect(types.length).toBeGreaterThan(25);
  const wrong = types.filter(([, name = '', type]) => {
    const counts = name.endsWith('_total');
    return counts !== (type === 'counter') || /_(ms|kb|mb|count|sum|bucket)$/.test(name);
  });
  expect(wrong.map(([line]) => line)).toEqual([]);
  const unnamed = types.filter(([, name = '']) => !manual.includes(`\`${name}\``));
  expect(unnamed.map(([, name]) => name)).toEqual([]);
  const named = [...manual.matchAll(/`(aurochs_(?:volume|engine)_[a-z_]+)`/g)];
  const known = new Set(types.map(([, name]) => name));
  expect(named.map(([, name]) => name).filter((name) => !known.has(name))).toEqual([]);
}

async function samples(port: number): Promise<Map<string, number>> {
  const text = await scrape(port);
  const lines = text.split('\n').filter((line) => line.startsWith('aurochs_'));
  return new Map(
    lines.map((line): [string, number] => {
      const at = line.lastIndexOf(' ');
      return [
        line.substring(0, at).replace(/,?component="engine"/, ''),
        Number(line.substring(at)),
      ];
    }),
  );
}

describe.skipIf(lacks !== undefined)(`recovery, as a person sees it ${lacks ?? ''}`, () => {
  let cluster: Cluster | undefined;
  afterEach(async () => {
    await cluster?.destroy();
    cluster = undefined;
  });

  it('a daemon is killed and started again: explain has the chain, metrics agree', async () => {
    const port = await freePort();
    const flags = ['--metrics', `127.0.0.1:${port}`, '--io-timeout', '120'];
    cluster = await Cluster.start({ size: '64MiB', engineFlags: flags });
    await write(cluster, 1, 300);
    const status = JSON.parse(await cluster.ask('volume', 'show', 'vol', '-o', 'json'));
    expect(status).toMatchObject({ state: 'healthy', ioTimeoutMs: 120_000 });
    const { replica: whole } = await explain(cluster, 1);
    expect([whole.situation, whole.chain]).toEqual(['in-sync', []]);
    await cluster.stopDaemon(1, 'SIGKILL');
    await write(cluster, 2, 300);
    await cluster.when((now) => now.replicas.some((r) => r.reason.startsWith('UNAVAILABLE: ')));
    const broken = await explain(cluster, 1);
    expect(broken.kinds.slice(0, 2)).toEqual(['failed', 'excluded']);
    expect(broken.replica.chain[1]?.generation).toBe(2);
    expect(broken.replica.situation).toBe('unreachable');
    expect(broken.story.sentence).toMatch(/^vol serves, degraded: 2 of 3 copies in sync; r-/);
    expect(broken.story.todo[0]).toContain('aurochs replica replace vol ');
    const { ifLost } = JSON.parse(
      await cluster.ask('explain', 'vol', '-o', 'json', '--if-lost', cluster.address(0)),
    );
    expect(ifLost).toMatchObject({ verdict: 'goes-on', left: [expect.stringMatching(/^r-/)] });
    await checkMetrics(port);
    const during = await samples(port);
    const { replicaId } = broken.replica;
    expect(during.get('aurochs_volume_state{volume="vol",state="degraded"}')).toBe(1);
    expect(
      during.get(
        `aurochs_volume_replica_state{volume="vol",replica="${replicaId}",state="failed"}`,
      ),
    ).toBe(1);
    await cluster.startDaemon(1);
    await cluster.whenHealthy();
    const back = await explain(cluster, 1);
    expect(back.kinds.filter((kind) => kind !== 'absent')).toEqual([
      ...['failed', 'excluded', 'rebuilding', 'in-sync'],
    ]);
    expect(back.story.sentence).toMatch(/^vol is healthy: 3 of 3 copies in sync/);
    const after = await samples(port);
    expect(after.get('aurochs_volume_generation{volume="vol"}')).toBe(3);
    expect(after.get('aurochs_volume_events_total{volume="vol",kind="in-sync"}')).toBe(1);
    expect(
      after.get('aurochs_volume_state_seconds_total{volume="vol",state="degraded"}'),
    ).toBeGreaterThan(0);
    const events = await cluster.ask('events', 'vol', '-n', '3');
    expect(events).toMatch(/ rebuilding: .*\n.* in-sync: in-sync again: generation 3\n$/);
  }, 90_000);

  it('replica replace onto a fourth daemon: equal, and found by the record (R4, R8)', async () => {
    cluster = await Cluster.start({ size: '64MiB' });
    const load = await write(cluster, 3, 500);
    await cluster.stopDaemon(1, 'SIGKILL');
    await cluster.startDaemon(3);
    const { replica } = await explain(cluster, 1);
    const words = ['replica', 'replace', 'vol', replica.replicaId, cluster.address(3)];
    // Cut off after the first step, then repeated as it stands.
    const begun = JSON.parse(await cluster.ask(...words, '--no-wait', '-o', 'json'));
    expect(begun).toMatchObject({ left: 2 });
    const done = JSON.parse(await cluster.ask(...words, '-o', 'json'));
    expect(done).toMatchObject({ added: begun.added, removed: replica.replicaId, left: 0 });
    expect(JSON.parse(await cluster.ask(...words, '-o', 'json'))).toMatchObject({ left: 0 });
    await cluster.whenHealthy();
    // R4: the last in-sync copies of a volume are not given away.
    const { replicas } = await cluster.status();
    for (const { replicaId } of replicas.slice(1)) {
      await cluster.ask('replica', 'remove', 'vol', replicaId);
    }
    const last = cluster.ask('replica', 'remove', 'vol', replicas[0]?.replicaId ?? '');
    await expect(last).rejects.toThrow(/error CONFLICT: replica r-.* is the last in-sync copy/);
    const again = ['replica', 'add', 'vol', cluster.address(3)];
    await expect(cluster.ask(...again)).rejects.toThrow(/error ALREADY_EXISTS/);
    const old = [begun.added, '--delete-data', '--address', cluster.address(3)];
    await cluster.ask('replica', 'remove', 'vol', ...old);
    await cluster.ask(...again);
    await cluster.stopEngine();
    // Its options name three daemons: the fourth is known to the record alone.
    await cluster.startEngine();
    await load.sweep();
    expect(load.problems()).toEqual([]);
    expect(await cluster.status()).toMatchObject({ state: 'healthy' });
    await cluster.stop();
    await cluster.expectEqual([0, 3]);
  }, 120_000);

  it('scrub finds a byte that was flipped on a disk, and repairs it (scenario 49)', async () => {
    cluster = await Cluster.start({ size: '64MiB' });
    const nbd = await SimpleNbd.connect(cluster.socket, 'vol');
    const block = Buffer.alloc(BLOCK, 'a block that is easy to find on a disk ');
    await nbd.request(NBD.WRITE, 8 * MIB, BLOCK, block);
    await nbd.request(NBD.FLUSH, 0, 0);
    await nbd.close();
    const before = JSON.parse(await cluster.ask('scrub', 'start', 'vol', '--wait', '-o', 'json'));
    expect(before).toMatchObject({ state: 'done', badBlocks: 0, repairedBlocks: 0 });
    // The stop of the engine cleans the region: its checksums are what counts.
    await cluster.stop();
    await flipByte(cluster.disk(2), block);
    await cluster.startDaemons();
    await cluster.startEngine();
    const text = await cluster.ask('scrub', 'start', 'vol', '--wait');
    expect(text).toMatch(/- 1 block did not match the stored checksum on a copy\./);
    expect(text).toMatch(/- 1 block rewritten from a good copy\./);
    expect(text).toMatch(/Proved: all that was written before /);
    const report = JSON.parse(await cluster.ask('scrub', 'status', 'vol', '-o', 'json'));
    expect(report).toMatchObject({ state: 'done', badBlocks: 1, repairedBlocks: 1 });
    expect(report.provedMs).toBeGreaterThan(before.provedMs);
    await cluster.stop();
    await cluster.expectEqual();
  }, 90_000);
});

/** Changes one byte of the first place on a disk file that holds `block`. */
async function flipByte(disk: string, block: Buffer): Promise<void> {
  const file = await open(disk, 'r+');
  try {
    const chunk = Buffer.alloc(MIB);
    for (let at = 0; ; at += MIB) {
      const { bytesRead } = await file.read(chunk, 0, MIB, at);
      if (bytesRead === 0) throw new Error(`${disk} does not hold the block`);
      const found = chunk.subarray(0, bytesRead).indexOf(block);
      if (found < 0) continue;
      await file.write(Buffer.from([0]), 0, 1, at + found + 100);
      return;
    }
  } finally {
    await file.close();
  }
}
