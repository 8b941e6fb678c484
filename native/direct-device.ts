/** BlockDevice over a file or a block device: direct I/O through the ring, or through threads where
 *  it is forbidden. */
import assert from 'node:assert';
import { close } from 'node:fs';
import { promisify } from 'node:util';
import type { BlockDevice } from '../common/block-device.js';
import { StorageError } from '../common/errors.js';
import { MIB } from '../common/units.js';
import { type Chunk, chunkOf, NativeBufferPool } from './buffer-pool.js';
import { ioError } from './errno.js';
import { type IoRequest, OPCODE, type Opcode, startRequest } from './io-channel.js';

const closeFd = promisify(close);

export type IoBackend = 'io_uring' | 'threads';

export interface DirectDeviceOptions {
  readonly path: string;
  /** owned by the device from here on */
  readonly fd: number;
  readonly kind: 'file' | 'block';
  readonly sizeBytes: number;
  readonly sectorSize: number;
  readonly readOnly: boolean;
  readonly directIo: boolean;
  readonly backend: IoBackend;
}

const NAMES: Readonly<Record<Opcode, string>> = {
  [OPCODE.READ]: 'read',
  [OPCODE.WRITE]: 'write',
  [OPCODE.FDATASYNC]: 'flush',
  [OPCODE.PUNCH_HOLE]: 'punch hole',
  [OPCODE.ZERO_RANGE]: 'zero range',
  [OPCODE.BLOCK_DISCARD]: 'discard',
  [OPCODE.BLOCK_ZERO_OUT]: 'write zeroes',
};

/** What a device or file system answers that cannot do an operation at all. */
const UNSUPPORTED: ReadonlySet<string> = new Set(['EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'ENOTTY']);

class DeviceRequest implements IoRequest {
  readonly onThreads: boolean;
  readonly fd: number;
  chunkId = 0;
  chunkOffset = 0;
  #chunk: Chunk | undefined;
  #slot = 0;

  constructor(
    readonly device: DirectDevice,
    readonly opcode: Opcode,
    readonly offsetBytes: number,
    readonly lengthBytes: number,
    readonly resolve: () => void,
    readonly reject: (error: StorageError) => void,
  ) {
    this.onThreads = device.backend === 'threads';
    this.fd = device.fd;
  }

  borrow(view: Buffer): void {
    const chunk = chunkOf(view);
    this.#slot = chunk.borrow(view);
    this.#chunk = chunk;
    this.chunkId = chunk.id;
    this.chunkOffset = view.byteOffset;
  }

  giveBack(): void {
    this.#chunk?.giveBack(this.#slot);
  }

  finish(result: number): void {
    this.giveBack();
    this.device.noteEnd();
    if (result === 0) this.resolve();
    else this.reject(this.device.errorOf(this, result));
  }
}

// Never written to; shared by all devices of the thread.
let zeroes: Buffer | undefined;

function zeroBytes(): Buffer {
  if (zeroes !== undefined) return zeroes;
  zeroes = new NativeBufferPool({ limitBytes: MIB }).acquire(MIB).bytes;
  return zeroes.fill(0);
}

/** Made by openBlockDevice. */
export class DirectDevice implements BlockDevice {
  readonly path: string;
  readonly kind: 'file' | 'block';
  readonly sizeBytes: number;
  readonly sectorSize: number;
  readonly directIo: boolean;
  readonly backend: IoBackend;
  readonly fd: number;
  readonly #readOnly: boolean;
  #discardSupported = true;
  /** Opcodes that this device has refused once. */
  readonly #refused = new Set<Opcode>();
  #flushError: StorageError | undefined;
  #inFlight = 0;
  #closing: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  constructor(options: DirectDeviceOptions) {
    this.path = options.path;
    this.fd = options.fd;
    this.kind = options.kind;
    this.sizeBytes = options.sizeBytes;
    this.sectorSize = options.sectorSize;
    this.directIo = options.directIo;
    this.backend = options.backend;
    this.#readOnly = options.readOnly;
  }

  get discardSupported(): boolean {
    return this.#discardSupported;
  }

  read(offsetBytes: number, view: Buffer): Promise<void> {
    return this.#start(OPCODE.READ, offsetBytes, view.length, view);
  }

  write(offsetBytes: number, view: Buffer): Promise<void> {
    return this.#start(OPCODE.WRITE, offsetBytes, view.length, view);
  }

  /** D3: after one failure every further flush of this open device fails with the same error. The
   *  kernel reports a lost write once and then says yes again, so a later success would prove
   *  nothing. */
  flush(): Promise<void> {
    if (this.#flushError !== undefined) return Promise.reject(this.#flushError);
    return this.#start(OPCODE.FDATASYNC, 0, 0, undefined);
  }

  async discard(offsetBytes: number, lengthBytes: number): Promise<void> {
    const opcode = this.kind === 'block' ? OPCODE.BLOCK_DISCARD : OPCODE.PUNCH_HOLE;
    if (!(await this.#startIfSupported(opcode, offsetBytes, lengthBytes))) {
      this.#discardSupported = false;
    }
  }

  async writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: { mayUnmap: boolean },
  ): Promise<void> {
    const keep = this.kind === 'block' ? OPCODE.BLOCK_ZERO_OUT : OPCODE.ZERO_RANGE;
    const ways = options.mayUnmap ? [OPCODE.PUNCH_HOLE, keep] : [keep];
    for (const opcode of ways) {
      if (await this.#startIfSupported(opcode, offsetBytes, lengthBytes)) return;
    }
    const end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end; at += MIB) {
      await this.write(at, zeroBytes().subarray(0, Math.min(MIB, end - at)));
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** For DeviceRequest only. */
  noteEnd(): void {
    this.#inFlight -= 1;
    if (this.#inFlight === 0) this.#onIdle?.();
  }

  /** For DeviceRequest only. */
  errorOf(request: DeviceRequest, result: number): StorageError {
    const { opcode, offsetBytes, lengthBytes } = request;
    const flush = opcode === OPCODE.FDATASYNC;
    const range = flush ? '' : ` [${offsetBytes}, ${offsetBytes + lengthBytes})`;
    const details = flush ? { disk: this.path } : { disk: this.path, offsetBytes, lengthBytes };
    const error = ioError(result, `${NAMES[opcode]}${range} of ${this.path}`, details);
    if (flush) this.#flushError ??= error;
    return error;
  }

  async #close(): Promise<void> {
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    // An error of close(2) says nothing that a flush has not said; the descriptor is gone either
    // way.
    await closeFd(this.fd).catch(() => undefined);
  }

  #start(
    opcode: Opcode,
    offsetBytes: number,
    lengthBytes: number,
    view: Buffer | undefined,
  ): Promise<void> {
    const refusal = this.#refusal(opcode, offsetBytes, lengthBytes);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (lengthBytes === 0 && opcode !== OPCODE.FDATASYNC) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const request = new DeviceRequest(this, opcode, offsetBytes, lengthBytes, resolve, reject);
      if (view !== undefined) {
        assert(view.byteOffset % this.sectorSize === 0, 'view is not aligned to the sector size');
        request.borrow(view);
      }
      const overload = startRequest(request);
      if (overload === undefined) {
        this.#inFlight += 1;
        return;
      }
      request.giveBack();
      reject(overload);
    });
  }

  /** @returns false when the device cannot do this at all; then nothing was done */
  async #startIfSupported(
    opcode: Opcode,
    offsetBytes: number,
    lengthBytes: number,
  ): Promise<boolean> {
    if (this.#refused.has(opcode)) {
      const refusal = this.#refusal(opcode, offsetBytes, lengthBytes);
      if (refusal !== undefined) throw refusal;
      return false;
    }
    try {
      await this.#start(opcode, offsetBytes, lengthBytes, undefined);
      return true;
    } catch (error) {
      const errno = error instanceof StorageError ? error.details.errno : undefined;
      if (errno === undefined || !UNSUPPORTED.has(errno)) throw error;
      this.#refused.add(opcode);
      return false;
    }
  }

  #refusal(opcode: Opcode, offsetBytes: number, lengthBytes: number): StorageError | undefined {
    assert(Number.isSafeInteger(offsetBytes) && offsetBytes >= 0, `offset ${offsetBytes}`);
    assert(Number.isSafeInteger(lengthBytes) && lengthBytes >= 0, `length ${lengthBytes}`);
    assert(offsetBytes % this.sectorSize === 0, `offset ${offsetBytes} is not whole sectors`);
    assert(lengthBytes % this.sectorSize === 0, `length ${lengthBytes} is not whole sectors`);
    if (this.#closing !== undefined) {
      return new StorageError('CLOSED', `${this.path} is closed`, { disk: this.path });
    }
    if (lengthBytes > this.sizeBytes - offsetBytes) {
      const range = `[${offsetBytes}, ${offsetBytes + lengthBytes})`;
      return new StorageError(
        'OUT_OF_RANGE',
        `${NAMES[opcode]} ${range} of ${this.path} ends past ${this.sizeBytes}`,
        { disk: this.path, offsetBytes, lengthBytes },
      );
    }
    if (this.#readOnly && opcode !== OPCODE.READ && opcode !== OPCODE.FDATASYNC) {
      return new StorageError('READ_ONLY', `${this.path} is open read-only`, { disk: this.path });
    }
    return undefined;
  }
}
