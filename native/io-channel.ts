/**
 * Carries requests to the kernel and results back, for all devices of this thread.
 *
 * Requests of one event-loop turn go down in one native call; completions come up in one callback
 * per batch. Nothing but the request itself is allocated per operation: slots are memory shared
 * with the native module.
 *
 * Invariants: a request holds a slot from its start until its `finish` is called, exactly once,
 * never within `start`. Requests beyond the slots wait in order of arrival; beyond WAITING_MAX they
 * are refused with OVERLOADED.
 */
import assert from 'node:assert';
import { StorageError } from '../common/errors.js';
import { type Attachment, addon } from './addon.js';
import { errnoName, ioError } from './errno.js';

/** Values are shared with native/src/operation.h. */
export const OPCODE = {
  READ: 1,
  WRITE: 2,
  FDATASYNC: 3,
  PUNCH_HOLE: 4,
  ZERO_RANGE: 5,
  BLOCK_DISCARD: 6,
  BLOCK_ZERO_OUT: 7,
} as const;
export type Opcode = (typeof OPCODE)[keyof typeof OPCODE];
const ON_THREADS = 0x100;

/** Requests that may wait for a slot. */
export const WAITING_MAX = 16 * 1024;

const SLOT_BYTES = 32;
const SLOT_WORDS = SLOT_BYTES / 4;
const SLOT_DOUBLES = SLOT_BYTES / 8;

/** One operation. Fields are read when a slot is free, so they must not change after `start`. */
export interface IoRequest {
  readonly opcode: Opcode;
  readonly onThreads: boolean;
  readonly fd: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** memory of READ and WRITE */
  readonly chunkId: number;
  readonly chunkOffset: number;
  /** @param result 0: all of it is done; else a negative errno. Must not throw. */
  finish(result: number): void;
}

class IoChannel {
  readonly #slotWords: Int32Array;
  readonly #slotDoubles: Float64Array;
  readonly #submissions: Uint32Array;
  readonly #completions: Int32Array;
  readonly #requests: Array<IoRequest | undefined>;
  readonly #freeSlots: Uint16Array;
  #freeCount: number;
  #staged = 0;
  #waiting: IoRequest[] = [];
  #waitingHead = 0;

  constructor(attachment: Attachment) {
    const { memory, slots, completionsAt, submissionsAt } = attachment;
    this.#slotWords = new Int32Array(memory, 0, slots * SLOT_WORDS);
    this.#slotDoubles = new Float64Array(memory, 0, slots * SLOT_DOUBLES);
    this.#completions = new Int32Array(memory, completionsAt, slots * 2);
    this.#submissions = new Uint32Array(memory, submissionsAt, slots);
    this.#requests = new Array<IoRequest | undefined>(slots).fill(undefined);
    this.#freeSlots = Uint16Array.from({ length: slots }, (_, index) => slots - 1 - index);
    this.#freeCount = slots;
  }

  start(request: IoRequest): StorageError | undefined {
    if (this.#freeCount > 0) {
      this.#stage(request);
      return undefined;
    }
    const waiting = this.#waiting.length - this.#waitingHead;
    if (waiting >= WAITING_MAX) {
      return new StorageError('OVERLOADED', `${waiting} disk operations already wait for a slot`);
    }
    this.#waiting.push(request);
    return undefined;
  }

  /** Called once per batch by the native module. */
  readonly complete = (count: number): void => {
    for (let i = 0; i < count; i++) {
      const slot = this.#completions[i * 2] as number;
      const result = this.#completions[i * 2 + 1] as number;
      const request = this.#requests[slot];
      assert(request !== undefined, `completion of idle slot ${slot}`);
      this.#requests[slot] = undefined;
      this.#freeSlots[this.#freeCount++] = slot;
      request.finish(result);
    }
    while (this.#freeCount > 0 && this.#waitingHead < this.#waiting.length) {
      this.#stage(this.#waiting[this.#waitingHead++] as IoRequest);
    }
    if (this.#waitingHead === this.#waiting.length) {
      this.#waiting = [];
      this.#waitingHead = 0;
    } else if (this.#waitingHead > 1024) {
      this.#waiting = this.#waiting.slice(this.#waitingHead);
      this.#waitingHead = 0;
    }
  };

  #stage(request: IoRequest): void {
    const slot = this.#freeSlots[--this.#freeCount] as number;
    this.#requests[slot] = request;
    const word = slot * SLOT_WORDS;
    const words = this.#slotWords;
    words[word] = request.onThreads ? request.opcode | ON_THREADS : request.opcode;
    words[word + 1] = request.fd;
    words[word + 6] = request.chunkId;
    words[word + 7] = request.chunkOffset;
    const double = slot * SLOT_DOUBLES;
    this.#slotDoubles[double + 1] = request.offsetBytes;
    this.#slotDoubles[double + 2] = request.lengthBytes;
    if (this.#staged === 0) queueMicrotask(this.#submitAtEndOfTurn);
    this.#submissions[this.#staged++] = slot;
  }

  // A tick set from a microtask runs when no microtask is left: after everything that this turn set
  // off.
  readonly #submitAtEndOfTurn = (): void => {
    process.nextTick(this.#submit);
  };

  readonly #submit = (): void => {
    const count = this.#staged;
    this.#staged = 0;
    addon.submit(count);
  };
}

let channel: IoChannel | undefined;
let ringErrno = 1;

function theChannel(): IoChannel {
  if (channel !== undefined) return channel;
  const attachment = addon.attach((count) => channel?.complete(count));
  if (typeof attachment === 'number') throw ioError(attachment, 'start of the I/O channel');
  channel = new IoChannel(attachment);
  return channel;
}

/** Queues a request; its `finish` is called in a later turn of the event loop, unless an error is
 *  returned.
 *  @returns StorageError OVERLOADED when WAITING_MAX requests wait already; `finish` is then never
 *  called */
export function startRequest(request: IoRequest): StorageError | undefined {
  return (channel ?? theChannel()).start(request);
}

/** Opens this thread's ring if it has none. @returns why there is none, or undefined when it is
 *  open */
export function ringRefusal(): string | undefined {
  if (ringErrno === 1) {
    theChannel();
    ringErrno = addon.openRing();
  }
  return ringErrno === 0 ? undefined : `io_uring_setup: ${errnoName(ringErrno)}`;
}
