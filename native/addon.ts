/** Loads the compiled module and gives it a type. Results of its functions are negative errnos
 *  where they fail. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { StorageError } from '../common/errors.js';

export interface Attachment {
  readonly memory: ArrayBuffer;
  readonly slots: number;
  /** byte offsets in `memory`; the slot table is at 0 */
  readonly completionsAt: number;
  readonly submissionsAt: number;
}

export interface FdFacts {
  readonly block: boolean;
  readonly sizeBytes: number;
  /** unit of direct I/O; 0: the file system does not do it */
  readonly sectorSize: number;
  /** 0: not known */
  readonly memoryAlign: number;
}

export interface NativeAddon {
  attach(callback: (count: number) => void): Attachment | number;
  openRing(): number;
  ringFlags(): number;
  submit(count: number): void;
  createChunk(lengthBytes: number): { id: number; memory: ArrayBuffer } | number;
  forgetPages(id: number): number;
  crc32c(bytes: Buffer): number;
  crc32cPortable(bytes: Buffer): number;
  crc32cName(): 'sse4.2' | 'armv8' | 'table';
  crc32cBlocks(
    src: Buffer,
    srcOffset: number,
    lengthBytes: number,
    out: Buffer,
    outOffset: number,
  ): void;
  crc32cVerify(
    src: Buffer,
    srcOffset: number,
    lengthBytes: number,
    expected: Buffer,
    expectedOffset: number,
  ): number;
  copyAndChecksum(
    src: Buffer,
    srcOffset: number,
    dst: Buffer,
    dstOffset: number,
    lengthBytes: number,
    out: Buffer,
    outOffset: number,
  ): void;
  hashBlocks(
    src: Buffer,
    srcOffset: number,
    lengthBytes: number,
    out: Buffer,
    outOffset: number,
  ): void;
  murmur3(bytes: Buffer, out: Buffer): void;
  openChannel(fd: number, callback: (result: number) => void): number;
  readChannel(id: number, into: Buffer, wait: boolean): number;
  writeChannel(id: number, parts: readonly Buffer[]): number;
  closeChannel(id: number): void;
  inspectFd(fd: number): FdFacts | number;
  lockFd(fd: number): number;
  mountFuse(dir: string, source: string, options: string): number;
  unmountFuse(dir: string, lazy: boolean): number;
}

/** The build that AUROCHS_NATIVE_BUILD names: `asan`, or the release build when it is not set. */
function addonPath(): string {
  const flavour = process.env['AUROCHS_NATIVE_BUILD'] === 'asan' ? 'build-asan' : 'build';
  const here = path.dirname(fileURLToPath(import.meta.url));
  // This file is native/addon.ts in tests and dist/native/addon.js in production.
  const folders = [here, path.join(here, '..', '..', 'native')];
  const files = folders.map((folder) =>
    path.resolve(folder, flavour, 'Release', 'aurochs_native.node'),
  );
  const found = files.find((file) => existsSync(file));
  if (found !== undefined) return found;
  throw new StorageError('UNSUPPORTED', `the native module is not built: no ${files.join(', ')}`, {
    hint: flavour === 'build' ? 'npm run build:native' : 'node scripts/build-native.mjs --sanitize',
  });
}

export const addon = createRequire(import.meta.url)(addonPath()) as NativeAddon;
