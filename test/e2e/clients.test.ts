/** Real clients on a real volume of three replicas: every process is the built program, every
 *  client from Debian. */
import { createHash, randomBytes } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster } from '../support/cluster.js';
import { missing } from '../support/host.js';
import { run } from '../support/process.js';

const lacks = missing('nbdinfo', 'nbdcopy', 'qemu-img', 'fio');

/** A file of random bytes with holes: sparse copies must keep both. */
async function randomImage(file: string, mebibytes: number): Promise<void> {
  const handle = await open(file, 'w');
  try {
    for (let at = 0; at < mebibytes; at += 1) {
      if (at % 5 === 3) continue;
      await handle.write(randomBytes(1 << 20), 0, 1 << 20, at << 20);
    }
    await handle.truncate(mebibytes << 20);
  } finally {
    await handle.close();
  }
}

async function digest(file: string): Promise<string> {
  const hash = createHash('sha256');
  const handle = await open(file);
  try {
    for await (const chunk of handle.createReadStream()) hash.update(chunk);
  } finally {
    await handle.close().catch(() => undefined);
  }
  return hash.digest('hex');
}

describe.skipIf(lacks !== undefined)(`real clients ${lacks ?? ''}`, () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({ size: '1GiB' });
  });
  afterAll(() => cluster.destroy());

  it('nbdinfo sees size, block sizes and flags that the whole path honours (D2)', async () => {
    const { stdout } = await run('nbdinfo', ['--json', cluster.uri]);
    const info = JSON.parse(stdout).exports[0];
    expect(info['export-size']).toBe(2 ** 30);
    expect(info['block_size_minimum'] ?? info['block-size-minimum']).toBe(512);
    for (const flag of ['can_flush', 'can_fua', 'can_trim', 'can_zero', 'can_multi_conn']) {
      expect(info[flag]).toBe(true);
    }
  });

  it('a 1 GiB image goes in and out through 4 connections and compares equal', async () => {
    const image = path.join(cluster.dir, 'in.img');
    const back = path.join(cluster.dir, 'out.img');
    await randomImage(image, 1024);
    await run('nbdcopy', ['--connections=4', '--flush', image, cluster.uri]);
    const compared = await run('qemu-img', [
      'compare',
      '-f',
      'raw',
      '-F',
      'raw',
      image,
      cluster.uri,
    ]);
    expect(compared.stdout).toContain('identical');
    await run('nbdcopy', ['--connections=4', cluster.uri, back]);
    expect(await digest(back)).toBe(await digest(image));
    await rm(back);
    await rm(image);
  }, 120_000);

  it('holes are told by block status and survive', async () => {
    const { stdout } = await run('nbdinfo', ['--map', '--totals', '--json', cluster.uri]);
    const totals = JSON.parse(stdout) as Array<{ size: number; type: number }>;
    const holes = totals.filter((t) => t.type === 3).reduce((sum, t) => sum + t.size, 0);
    expect(holes).toBe(205 * 2 ** 20);
  });

  it.each([
    { bs: '4k', rw: 'randwrite' },
    { bs: '64k', rw: 'randwrite' },
    { bs: '512-128k', rw: 'randwrite' },
  ])('fio verify=crc32c is clean with $bs', async ({ bs, rw }) => {
    const block = bs.includes('-') ? [`--bsrange=${bs}`, '--bs_unaligned=0'] : [`--bs=${bs}`];
    const out = path.join(cluster.dir, 'fio.json');
    await run('fio', [
      ...['--name=v', '--ioengine=nbd', `--uri=${cluster.uri}`, `--rw=${rw}`, ...block],
      ...[
        '--size=64M',
        '--iodepth=16',
        '--verify=crc32c',
        '--verify_state_save=0',
        '--verify_fatal=1',
        '--fsync=64',
      ],
      ...['--randrepeat=0', '--verify_state_save=0', '--output-format=json', `--output=${out}`],
    ]);
  });

  it('all copies are byte-identical after a stop', async () => {
    await cluster.stop();

    await cluster.expectEqual();
  }, 60_000);
});
