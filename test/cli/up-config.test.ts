import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { mergeConfig, readConfig, type UpConfig, writeConfig } from '../../cli/up-config.js';
import { GIB, TIB } from '../../common/units.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'aurochs-up-'));
});
afterEach(() => rm(dir, { recursive: true }));

const stored: UpConfig = {
  version: 1,
  nodes: 2,
  diskSizeBytes: 5 * GIB,
  volume: 'pg',
  sizeBytes: 2 * GIB,
};

describe('mergeConfig', () => {
  it('takes the defaults for a new folder, and what was asked for', () => {
    expect(mergeConfig(undefined, {})).toEqual({
      version: 1,
      nodes: 3,
      diskSizeBytes: 10 * GIB,
      volume: 'demo',
      sizeBytes: GIB,
    });
    expect(mergeConfig(undefined, { nodes: 1, volume: 'pg' })).toMatchObject({
      nodes: 1,
      volume: 'pg',
    });
  });

  it('keeps what is stored, also when it is asked for again', () => {
    expect(mergeConfig(stored, {})).toBe(stored);
    expect(mergeConfig(stored, { nodes: 2, sizeBytes: 2 * GIB })).toBe(stored);
  });

  it.each([
    [{ nodes: 3 }, /made with --nodes 2, not 3/],
    [{ volume: 'demo' }, /--volume pg, not demo/],
    [{ sizeBytes: GIB }, /--size 2GiB, not 1GiB/],
    [{ diskSizeBytes: TIB }, /--disk-size 5GiB, not 1TiB/],
  ])('refuses %j against what is stored', (asked, message) => {
    expect(() => mergeConfig(stored, asked)).toThrow(message);
    expect(() => mergeConfig(stored, asked)).toThrow(expect.objectContaining({ code: 'CONFLICT' }));
  });
});

describe('up.json', () => {
  it('is read back as it was written, with nothing left aside', async () => {
    expect(await readConfig(dir)).toBeUndefined();
    await writeConfig(dir, stored);
    await writeConfig(dir, stored);
    expect(await readConfig(dir)).toEqual(stored);
    expect(await readdir(dir)).toEqual(['up.json']);
  });

  it.each([
    '',
    '{',
    'null',
    '[]',
    '{"version":2}',
    JSON.stringify({ ...stored, volume: '../etc' }),
    JSON.stringify({ ...stored, nodes: 0 }),
    JSON.stringify({ ...stored, nodes: 1e9 }),
    JSON.stringify({ ...stored, sizeBytes: '1GiB' }),
    JSON.stringify({ ...stored, sizeBytes: 1.5 }),
    JSON.stringify({ ...stored, diskSizeBytes: null }),
  ])('with the text %j is refused', async (text) => {
    await writeFile(path.join(dir, 'up.json'), text);
    await expect(readConfig(dir)).rejects.toMatchObject({ code: 'CORRUPT_METADATA' });
  });
});
