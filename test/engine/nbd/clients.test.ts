/** Real clients against the memory volume: libnbd's tools, QEMU's, fio. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MemoryVolume } from '../../support/memory-volume.js';
import { startServer, type TestServer } from './test-server.js';

const MIB = 1 << 20;
const SIZE = 64 * MIB;

const exec = promisify(execFile);
async function run(command: string, ...args: string[]): Promise<string> {
  const { stdout } = await exec(command, args, { maxBuffer: 64 * MIB, timeout: 25_000 });
  return stdout;
}

/** Random data with holes: 1 MiB of each, and a ragged piece at the end. */
async function writeImage(path: string, sizeBytes: number): Promise<void> {
  const file = await open(path, 'w');
  await file.truncate(sizeBytes);
  for (let at = 0; at < sizeBytes; at += 2 * MIB) {
    await file.write(randomBytes(MIB), 0, MIB, at);
  }
  await file.write(Buffer.from('the end'), 0, 7, sizeBytes - 7);
  await file.close();
}

describe('real clients', () => {
  let under: TestServer;
  let uri: string;
  beforeEach(async () => {
    const volume = new MemoryVolume({ sizeBytes: SIZE });
    const exports = [
      { name: 'v1', volume, description: 'a volume' },
      { name: 'ro', volume, readOnly: true },
    ];
    under = await startServer({ volume, exports });
    uri = under.server.uriOf('v1');
  });
  afterEach(async () => {
    await under.server.close({ drain: true });
    under.volume.assertBalanced();
    await under.stop();
  });
  const temporary = (name: string): string => join(under.directory, name);

  it('nbdinfo sees everything that is offered', async () => {
    const info = JSON.parse(await run('nbdinfo', '--json', uri));
    expect(info).toMatchObject({ protocol: 'newstyle-fixed', structured: true });
    expect(info.exports[0]).toMatchObject({
      'export-name': 'v1',
      description: 'a volume',
      'export-size': SIZE,
      contexts: ['base:allocation'],
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      is_read_only: false,
      block_size_minimum: 512,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MIB,
    });
    const list = JSON.parse(await run('nbdinfo', '--list', '--json', uri));
    const names = list.exports.map((each: Record<string, unknown>) => each['export-name']);
    expect(names).toEqual(['v1', 'ro']);
    expect(await run('nbdinfo', '--is', 'read-only', under.server.uriOf('ro'))).toBe('');
  });

  it('nbdcopy both ways through 4 connections, and nbdinfo --map', async () => {
    const image = temporary('image');
    const back = temporary('back');
    await writeImage(image, SIZE);
    await run('nbdcopy', '--connections=4', '--requests=16', '--flush', image, uri);
    expect(under.volume.flushes).toBeGreaterThan(0);
    await run('nbdcopy', '--connections=4', '--requests=64', uri, back);
    expect((await readFile(back)).equals(await readFile(image))).toBe(true);
    const map = JSON.parse(await run('nbdinfo', '--map', '--json', uri));
    expect(map.slice(0, 2)).toMatchObject([
      { offset: 0, length: MIB, type: 0 },
      { offset: MIB, length: MIB, type: 3 },
    ]);
    expect(under.volume.allocatedBytes).toBeLessThan(SIZE / 2 + MIB);
  });

  it('qemu-img convert, compare, map, info', async () => {
    const image = temporary('image');
    await writeImage(image, SIZE);
    const nbd = `nbd+unix:///v1?socket=${under.path}`;
    await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', '-m', '16', '-W', image, nbd);
    const same = await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, nbd);
    expect(same).toContain('Images are identical');
    const info = JSON.parse(await run('qemu-img', 'info', '--output=json', '-f', 'raw', nbd));
    expect(info['virtual-size']).toBe(SIZE);
    const map = JSON.parse(await run('qemu-img', 'map', '--output=json', '-f', 'raw', nbd));
    expect(map[1]).toMatchObject({ start: MIB, length: MIB, zero: true });
    const flipped = under.volume.peek(5, 1).map((byte) => byte ^ 1);
    await under.volume.write(5, 1, [Buffer.from(flipped)], { fua: false });
    const compare = run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, nbd);
    await expect(compare, 'one byte differs').rejects.toMatchObject({ code: 1 });
    const back = temporary('back');
    await run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', nbd, back);
    expect((await readFile(back)).equals(under.volume.peek(0, SIZE))).toBe(true);
  });

  it('qemu-io: patterns, zeroes, discard, FUA, flush', async () => {
    under.volume.journal = [];
    const commands = [
      'write -P 0x5a 1000 70000',
      'read -P 0x5a 1000 70000',
      'read -P 0 0 1000',
      'write -f -P 0x33 4k 4k',
      'write -z 8k 16k',
      'read -P 0 8k 16k',
      'write -z -u 64k 4k',
      'read -P 0 64k 4k',
      'discard 0 1M',
      'read -P 0 0 1M',
      'flush',
    ];
    const args = commands.flatMap((command) => ['-c', command]);
    const out = await run('qemu-io', '-f', 'raw', ...args, uri);
    expect(out).not.toMatch(/failed|error/i);
    const calls = new Set(under.volume.journal.map((each) => each.call));
    expect([...calls]).toEqual(expect.arrayContaining(['write', 'writeZeroes', 'trim', 'flush']));
    expect(under.volume.journal.some((each) => each.call === 'write' && each.fua)).toBe(true);
    expect(under.volume.journal.some((each) => each.noHole)).toBe(true);
  });

  it('a read-only export refuses qemu-io to write', async () => {
    const readOnly = under.server.uriOf('ro');
    await expect(run('qemu-io', '-f', 'raw', '-c', 'write 0 4k', readOnly)).rejects.toThrow();
    expect(await run('qemu-io', '-r', '-f', 'raw', '-c', 'read 0 4k', readOnly)).toContain('read');
  });

  it('fio verifies crc32c of mixed writes', async () => {
    const job = temporary('verify.fio');
    await writeFile(
      job,
      [
        '[global]',
        'ioengine=nbd',
        `uri=${uri}`,
        'size=48M',
        'verify=crc32c',
        'verify_state_save=0',
        'verify_fatal=1',
        'randrepeat=0',
        '[mixed]',
        'rw=randwrite',
        'bsrange=512-128k',
        'blockalign=512',
        'iodepth=16',
        'fsync=64',
      ].join('\n'),
    );
    const output = temporary('fio.json');
    await exec('fio', ['--output-format=json', `--output=${output}`, job], {
      cwd: under.directory,
      timeout: 25_000,
    });
    const text = await readFile(output, 'utf8');
    const result = JSON.parse(text.slice(text.indexOf('{')));
    expect(result.jobs[0].error).toBe(0);
    expect(result.jobs[0].read.total_ios).toBeGreaterThan(100);
    expect(under.volume.flushes).toBeGreaterThan(0);
  });
});
