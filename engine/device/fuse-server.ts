/**
 * A file system with one file, whose content is the export of an NBD server.
 *
 * - Nothing is cached here: every READ, WRITE, FSYNC and FALLOCATE is a request to the engine,
 *   and is answered when the engine answered. FSYNC is NBD FLUSH (D1). The loop device turns FUA
 *   into such a flush, so no FUA is ever sent (D2).
 * - PUNCH_HOLE is TRIM. The loop device uses it for discard *and* for write-zeroes, so the
 *   engine's TRIM must read back as zeroes, which it promises (N4). A server without TRIM gets
 *   WRITE_ZEROES.
 * - Bounded: at most `requestsMax` requests and the memory of the arena; past that /dev/fuse is
 *   not read.
 */
import { toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { COMMAND, COMMAND_FLAG, REQUEST_BYTES, TRANSMISSION_FLAG } from '../nbd/constants.js';
import { FuseIo, type FuseIoOwner, FuseRangeIo } from './fuse-io.js';
import {
  ERRNO,
  encodeOutHeader,
  encodeWriteReply,
  FALLOC,
  FUSE_OP,
  IN_HEADER_BYTES,
  OUT_HEADER_BYTES,
  readU64,
  WRITE_HEADER_BYTES,
} from './fuse-wire.js';
import type { NbdClient } from './nbd-client.js';
import { OneFile } from './one-file.js';
import type { RequestArena, Slab } from './request-arena.js';

/** /dev/fuse of one mount: whole requests in, whole replies out. `read` rejects, or gives 0, after
 *  the unmount. */
export interface FuseChannel {
  read(view: Buffer): Promise<number>;
  write(views: Buffer[]): number;
}

export interface FuseServerOptions {
  readonly channel: FuseChannel;
  readonly client: NbdClient;
  readonly arena: RequestArena;
  readonly log: Logger;
  /** requests in flight at most; the client was told the same number */
  readonly requestsMax: number;
  /** longest READ or WRITE: a multiple of 4096, at most 1 MiB */
  readonly ioBytesMax: number;
  /** called when the last handle on the file was closed */
  readonly onUnused: () => void;
}

export class FuseServer implements FuseIoOwner {
  readonly #options: FuseServerOptions;
  readonly #channel: FuseChannel;
  readonly #client: NbdClient;
  readonly #files: OneFile;
  #inFlight = 0;
  #slotWaiter: (() => void) | undefined;
  #flushScheduled = false;
  readonly #single: Buffer[] = [Buffer.alloc(0)];
  readonly #headerReply = Buffer.alloc(OUT_HEADER_BYTES);
  readonly #writeReply = encodeWriteReply(0);

  constructor(options: FuseServerOptions) {
    this.#options = options;
    this.#channel = options.channel;
    this.#client = options.client;
    const { ioBytesMax, requestsMax } = options;
    this.#files = new OneFile(() => options.client.info, {
      ioBytesMax,
      backgroundMax: requestsMax,
    });
  }

  get inFlight(): number {
    return this.#inFlight;
  }
  get openHandles(): number {
    return this.#files.openHandles;
  }

  /** Serves until the file system is unmounted or the connection aborted.
   *  @throws StorageError PROTOCOL_ERROR when the kernel's protocol is too old */
  async run(): Promise<void> {
    for (;;) {
      const view = this.#options.arena.reserve();
      if (view === undefined) await this.#options.arena.whenFree();
      else if (this.#inFlight >= this.#options.requestsMax) await this.#whenSlotFree();
      else {
        const lengthBytes = await this.#read(view);
        if (lengthBytes === 0) return;
        this.#take(view, lengthBytes);
      }
    }
  }

  onIoDone(io: FuseIo, errno: number, reply: Buffer | undefined): void {
    this.#inFlight -= 1;
    if (errno !== 0) {
      this.#replyError(io, errno);
    } else if (io.type === COMMAND.WRITE) {
      this.#writeReply.writeUInt32LE(io.lengthBytes, OUT_HEADER_BYTES);
      this.#reply(io, this.#writeReply);
    } else {
      // A read's header takes the place of the NBD header in front of the data: no copy.
      this.#reply(io, reply ?? this.#headerReply);
    }
    const wake = this.#slotWaiter;
    this.#slotWaiter = undefined;
    wake?.();
  }

  submitAgain(io: FuseIo): void {
    this.#client.submit(io);
    this.#scheduleFlush();
  }

  /** Length of the next request; 0 when there will be none. */
  async #read(view: Buffer): Promise<number> {
    for (;;) {
      try {
        return await this.#channel.read(view);
      } catch (cause) {
        const error = toStorageError(cause, 'read of /dev/fuse');
        // The request was taken back before we had it.
        if (error.details.errno === 'ENOENT') continue;
        this.#options.log.info({ code: error.code, reason: error.message }, 'file system is gone');
        return 0;
      }
    }
  }

  #take(view: Buffer, lengthBytes: number): void {
    const slab = this.#options.arena.take(lengthBytes);
    const bytes = view.subarray(0, lengthBytes);
    let kept = false;
    try {
      if (lengthBytes >= IN_HEADER_BYTES && bytes.readUInt32LE(0) === lengthBytes) {
        kept = this.#dispatch(bytes, slab);
      }
    } catch (error) {
      // Bytes that do not parse: the one who asked is told, others go on.
      this.#options.log.warn({ err: error }, 'request of the kernel refused');
      this.#replyError(uniqueOf(bytes), ERRNO.INVAL);
    }
    if (!kept) slab.release();
  }

  /** True: the request keeps the slab until it is answered. */
  #dispatch(bytes: Buffer, slab: Slab): boolean {
    switch (bytes.readUInt32LE(4)) {
      case FUSE_OP.READ:
        return this.#takeRead(bytes, slab);
      case FUSE_OP.WRITE:
        return this.#takeWrite(bytes, slab);
      case FUSE_OP.FSYNC:
        return this.#takeFsync(bytes, slab);
      case FUSE_OP.FALLOCATE:
        return this.#takeFallocate(bytes, slab);
      default:
        this.#answerAtOnce(bytes);
        return false;
    }
  }

  #takeRead(bytes: Buffer, slab: Slab): boolean {
    const offsetBytes = readU64(bytes, IN_HEADER_BYTES + 8);
    const wantedBytes = bytes.readUInt32LE(IN_HEADER_BYTES + 16);
    const lengthBytes = Math.min(wantedBytes, this.#client.info.sizeBytes - offsetBytes);
    if (lengthBytes <= 0 || wantedBytes > this.#options.ioBytesMax) {
      this.#replyError(uniqueOf(bytes), lengthBytes <= 0 ? 0 : ERRNO.INVAL);
      return false;
    }
    const io = new FuseIo(this, slab, bytes);
    io.type = COMMAND.READ;
    io.offsetBytes = offsetBytes;
    io.lengthBytes = lengthBytes;
    return this.#submit(io, bytes.subarray(0, REQUEST_BYTES));
  }

  #takeWrite(bytes: Buffer, slab: Slab): boolean {
    const offsetBytes = readU64(bytes, IN_HEADER_BYTES + 8);
    const lengthBytes = bytes.readUInt32LE(IN_HEADER_BYTES + 16);
    if (lengthBytes === 0 || bytes.length !== WRITE_HEADER_BYTES + lengthBytes) {
      this.#replyError(uniqueOf(bytes), ERRNO.INVAL);
      return false;
    }
    const io = new FuseIo(this, slab, bytes);
    io.type = COMMAND.WRITE;
    io.offsetBytes = offsetBytes;
    io.lengthBytes = lengthBytes;
    // The NBD header goes where the kernel's header ends: one piece to send, nothing copied.
    return this.#submit(io, bytes.subarray(WRITE_HEADER_BYTES - REQUEST_BYTES));
  }

  #takeFsync(bytes: Buffer, slab: Slab): boolean {
    if ((this.#client.info.flags & TRANSMISSION_FLAG.SEND_FLUSH) === 0) {
      this.#replyError(uniqueOf(bytes), 0);
      return false;
    }
    const io = new FuseIo(this, slab, bytes);
    io.type = COMMAND.FLUSH;
    return this.#submit(io, bytes.subarray(0, REQUEST_BYTES));
  }

  #takeFallocate(bytes: Buffer, slab: Slab): boolean {
    const offsetBytes = readU64(bytes, IN_HEADER_BYTES + 8);
    const endBytes = offsetBytes + readU64(bytes, IN_HEADER_BYTES + 16);
    const mode = bytes.readUInt32LE(IN_HEADER_BYTES + 24);
    const io = new FuseRangeIo(this, slab, bytes);
    const { flags, sizeBytes } = this.#client.info;
    const canZero = (flags & TRANSMISSION_FLAG.SEND_WRITE_ZEROES) !== 0;
    if (mode === (FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE)) {
      const canTrim = (flags & TRANSMISSION_FLAG.SEND_TRIM) !== 0;
      io.type = canTrim ? COMMAND.TRIM : COMMAND.WRITE_ZEROES;
    } else if ((mode & ~FALLOC.KEEP_SIZE) === FALLOC.ZERO_RANGE) {
      io.type = COMMAND.WRITE_ZEROES;
      io.flags = COMMAND_FLAG.NO_HOLE;
    }
    if (io.type === 0 || (io.type === COMMAND.WRITE_ZEROES && !canZero)) {
      this.#replyError(io, ERRNO.OPNOTSUPP);
      return false;
    }
    if (endBytes > sizeBytes || endBytes === offsetBytes) {
      this.#replyError(io, ERRNO.INVAL);
      return false;
    }
    io.setRange(offsetBytes, endBytes);
    return this.#submit(io, bytes.subarray(0, REQUEST_BYTES));
  }

  #submit(io: FuseIo, frame: Buffer): true {
    io.frame = frame;
    this.#inFlight += 1;
    this.#client.submit(io);
    this.#scheduleFlush();
    return true;
  }

  /** Ticks run when the chain of resolved reads is used up: all requests that were waiting leave in
   *  one write. */
  #scheduleFlush(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    process.nextTick(() => {
      this.#flushScheduled = false;
      this.#client.flush();
    });
  }

  #answerAtOnce(bytes: Buffer): void {
    const answer = this.#files.answer(bytes);
    if (answer === 'none') return;
    if (typeof answer === 'number') this.#replyError(uniqueOf(bytes), answer);
    else this.#reply(uniqueOf(bytes), answer);
    if (bytes.readUInt32LE(4) === FUSE_OP.RELEASE && this.openHandles === 0) {
      this.#options.onUnused();
    }
  }

  #replyError(unique: FuseUnique, errno: number): void {
    encodeOutHeader(this.#headerReply, OUT_HEADER_BYTES, errno, unique);
    this.#send(this.#headerReply);
  }

  #reply(unique: FuseUnique, bytes: Buffer): void {
    encodeOutHeader(bytes, bytes.length, 0, unique);
    this.#send(bytes);
  }

  #send(bytes: Buffer): void {
    this.#single[0] = bytes;
    try {
      this.#channel.write(this.#single);
    } catch (error) {
      // The request is gone: its process was killed, or the file system is being unmounted. Nobody
      // waits for it.
      this.#options.log.debug({ err: error }, 'reply to the kernel was not taken');
    }
  }

  #whenSlotFree(): Promise<void> {
    return new Promise((resolve) => {
      this.#slotWaiter = resolve;
    });
  }
}

interface FuseUnique {
  readonly uniqueLow: number;
  readonly uniqueHigh: number;
}

function uniqueOf(bytes: Buffer): FuseUnique {
  return { uniqueLow: bytes.readUInt32LE(8), uniqueHigh: bytes.readUInt32LE(12) };
}
