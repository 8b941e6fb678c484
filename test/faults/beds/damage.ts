/** Damages files as bad memory, bad disks and people do: a bit flipped, cut off, emptied, deleted;
 *  put back from an old copy. */
import { cp, open, readdir, rm, stat, truncate } from 'node:fs/promises';
import path from 'node:path';
import type { SeededRandom } from '../../engine/nbd/seeded-random.js';
import { run } from '../../support/process.js';

export const HARMS = ['flip', 'cut', 'empty', 'delete'] as const;
export type Harm = (typeof HARMS)[number];

/** Changes one bit of the file in the range. */
export async function flipBit(
  file: string,
  random: SeededRandom,
  range: { readonly from: number; readonly to: number },
): Promise<number> {
  const at = range.from + random.below(range.to - range.from);
  const handle = await open(file, 'r+');
  try {
    const byte = Buffer.alloc(1);
    await handle.read(byte, 0, 1, at);
    byte[0] = (byte[0] ?? 0) ^ (1 << random.below(8));
    await handle.write(byte, 0, 1, at);
    // Who reads past the page cache must see it, too.
    await handle.sync();
  } finally {
    await handle.close();
  }
  return at;
}

export async function harm(file: string, how: Harm, random: SeededRandom): Promise<void> {
  const { size } = await stat(file);
  if (how === 'flip' && size > 0) await flipBit(file, random, { from: 0, to: size });
  if (how === 'cut') await truncate(file, Math.floor(size / 2));
  if (how === 'empty') await truncate(file, 0);
  if (how === 'delete') await rm(file);
}

/** Every file below the directory, as a path in it, in the order of names. */
export async function filesBelow(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  return files.map((file) => path.relative(dir, path.join(file.parentPath, file.name))).sort();
}

/** Copies a file or a directory, holes stay holes. What is there is replaced. */
export async function copyTo(from: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true });
  if ((await stat(from)).isDirectory()) await cp(from, to, { recursive: true });
  else await run('cp', ['--sparse=always', from, to]);
}

/** Where in the file these bytes are, at multiples of 4096; holes are not searched. */
export async function findBlocks(file: string, block: Buffer): Promise<number[]> {
  const handle = await open(file, 'r');
  const found: number[] = [];
  try {
    const { size } = await handle.stat();
    const piece = Buffer.alloc(1 << 20);
    for (let at = 0; at < size; at += piece.length) {
      const { bytesRead } = await handle.read(piece, 0, piece.length, at);
      for (let n = 0; n + block.length <= bytesRead; n += 4096) {
        if (piece.compare(block, 0, block.length, n, n + block.length) === 0) found.push(at + n);
      }
    }
  } finally {
    await handle.close();
  }
  return found;
}
