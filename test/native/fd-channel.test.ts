/** FdChannel over a FIFO, which takes and gives bytes on one descriptor. FUSE itself:
 *  faults.test.ts. */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { constants as os, tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FdChannel, fuseMount, fuseUnmount } from '../../native/index.js';
import { isRoot } from '../support/host.js';

const code = (value: string): unknown => expect.objectContaining({ code: value });

let dir: string;
let channel: FdChannel;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'aurochs-channel-'));
  const fifo = path.join(dir, 'fifo');
  execFileSync('mkfifo', [fifo]);
  channel = new FdChannel(openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK));
});
afterEach(async () => {
  channel.close();
  await rm(dir, { recursive: true });
});

describe('FdChannel', () => {
  test('a message that is there is read at once, one that comes later when it comes', async () => {
    expect(channel.write([Buffer.from('he'), Buffer.alloc(0), Buffer.from('llo')])).toBe(5);
    const view = Buffer.alloc(16);
    expect(await channel.read(view)).toBe(5);
    expect(view.toString('latin1', 0, 5)).toBe('hello');
    const later = channel.read(view);
    setImmediate(() => channel.write([Buffer.from('again')]));
    expect(await later).toBe(5);
    expect(view.toString('latin1', 0, 5)).toBe('again');
  });

  test('close rejects the pending read with CLOSED, and everything after it', async () => {
    const pending = channel.read(Buffer.alloc(16));
    const { fd } = channel;
    channel.close();
    channel.close();
    await expect(pending).rejects.toEqual(code('CLOSED'));
    await expect(channel.read(Buffer.alloc(16))).rejects.toEqual(code('CLOSED'));
    expect(() => channel.write([Buffer.from('x')])).toThrow(code('CLOSED') as Error);
    expect(() => fstatSync(fd)).toThrow('EBADF');
  });

  test('a full pipe is an error with its errno, not a wait', () => {
    const block = Buffer.alloc(64 * 1024);
    const fill = (): void => {
      for (let i = 0; i < 100; i++) channel.write([block]);
    };
    expect(fill).toThrow(expect.objectContaining({ details: { errno: 'EAGAIN' } }));
  });

  test('messages without end do not starve the event loop', async () => {
    let turns = 0;
    let busy = true;
    const count = (): void => {
      turns += 1;
      if (busy) setImmediate(count);
    };
    setImmediate(count);
    const view = Buffer.alloc(8);
    for (let i = 0; i < 1000; i++) {
      channel.write([Buffer.from('message!')]);
      expect(await channel.read(view)).toBe(8);
    }
    busy = false;
    expect(turns).toBeGreaterThanOrEqual(10);
  });

  test('a second read at a time is a programmer error', async () => {
    const first = channel.read(Buffer.alloc(8));
    expect(() => channel.read(Buffer.alloc(8))).toThrow('second read');
    channel.write([Buffer.from('one')]);
    expect(await first).toBe(3);
  });

  test('a descriptor that cannot be polled is refused and stays with the caller', async () => {
    const file = path.join(dir, 'regular');
    await writeFile(file, '');
    const fd = openSync(file, 'r');
    expect(() => new FdChannel(fd)).toThrow(code('IO_ERROR') as Error);
    closeSync(fd);
  });
});

describe.skipIf(!isRoot)('fuseMount (root)', () => {
  test('refusals carry a code; an unknown mount option is a programmer error', () => {
    const nowhere = path.join(dir, 'nowhere');
    expect(() => fuseMount(nowhere, { source: 'x' })).toThrow(code('NOT_FOUND') as Error);
    expect(() => fuseUnmount(dir)).toThrow(code('INVALID_ARGUMENT') as Error);
    const shell = { source: 'x', options: 'allow_other, ;rm' };
    expect(() => fuseMount(dir, shell)).toThrow('mount options');
  });

  test('mounts on a folder; unmounting ends the channel; busy is told apart', async () => {
    const fd = fuseMount(dir, { source: 'aurochs', options: 'allow_other,max_read=65536' });
    const fuse = new FdChannel(fd);
    const init = Buffer.alloc(64 * 1024);
    expect(await fuse.read(init)).toBeGreaterThanOrEqual(56);
    expect(init.readUInt32LE(4)).toBe(26); // FUSE_INIT
    const next = fuse.read(init);
    fuseUnmount(dir, { lazy: true });
    await expect(next).rejects.toEqual(code('CLOSED'));
    expect(os.errno.ENODEV).toBe(19);
    fuse.close();
  });
});
