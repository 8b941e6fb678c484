/**
 * The transmission phase of one connection: requests in, I/O on the volume, replies out.
 *
 * - A request is answered exactly once, or its connection is closed; every `enter` of the volume
 *   has its `leave`, every ReadResult its `release`, whatever happens to the socket.
 * - Reading stops while a request waits for admission, while `inFlightMax` requests are unanswered,
 *   and while `replyBytesMax` of replies are asked for or unsent: nothing is read ahead of what it
 *   may use.
 * - A refused WRITE has its payload thrown away, so that the stream stays in step.
 * - After `finish` no new request is read; those in flight are answered.
 */
import assert from 'node:assert';
import type { Socket } from 'node:net';
import { StorageError } from '../../common/errors.js';
import { KIB, REQUEST_BYTES_MAX } from '../../common/units.js';
import type { BlockVolume, ReadResult, StatusRun } from '../block-volume.js';
import { COMMAND, NBD_ERROR, REQUEST_BYTES } from './constants.js';
import { errorAnswer } from './error-number.js';
import type { NbdSession } from './handshake.js';
import { Payload } from './payload.js';
import type { PendingRequest, RequestOwner } from './pending-request.js';
import { ReplyQueue } from './reply-queue.js';
import * as reply from './reply-writer.js';
import { checkRequest, decodeRequest, emptyHeader } from './request.js';
import type { ServerContext } from './server-context.js';
import { startRequest } from './start-request.js';
import { UnsentReads } from './unsent-reads.js';

const NOTHING: Buffer = Buffer.alloc(0);
/** A peer that sends payload moves if it sends this much. */
const PROGRESS_BYTES = 64 * KIB;

export interface TransmissionOptions {
  readonly socket: Socket;
  readonly session: NbdSession;
  readonly context: ServerContext;
  /** After `finish`: every request is answered and every reply sent. */
  readonly onFinished: () => void;
  /** The peer broke the protocol beyond an answer. */
  readonly onBroken: (reason: string) => void;
  /** The socket is closed and no request of it runs any more. */
  readonly onSettled: () => void;
}

export class Transmission implements RequestOwner {
  readonly #options: TransmissionOptions;
  readonly #session: NbdSession;
  readonly #volume: BlockVolume;
  readonly #context: ServerContext;
  readonly #queue: ReplyQueue;
  #state: 'open' | 'finishing' | 'closed' = 'open';
  /** flow: until a reply is sent or written. admission: until a promise settles. */
  #blocked: 'no' | 'flow' | 'admission' = 'no';
  #paused = false;
  #input: Buffer = NOTHING;
  #at = 0;
  /** start of a header whose rest has not come */
  #carry: Buffer | undefined;
  #carriedBytes = 0;
  readonly #header = emptyHeader();
  /** `#header` was decoded and not yet accepted */
  #headerReady = false;
  /** WRITE whose payload is coming in, with what came, and its share of the payload budget */
  #receiving: PendingRequest | undefined;
  #payload: Payload | undefined;
  #budgetBytes = 0;
  #progressBytes = 0;
  /** payload of a refused WRITE that is still to be thrown away, and the refusal */
  #discardBytes = 0;
  #discardAnswer: { number: number; text: string } | undefined;
  #inFlight = 0;
  /** bytes that READs in flight will add to the replies */
  #readBytes = 0;
  readonly #unsentReads = new UnsentReads();
  /** since when the peer owes payload, does not take replies, or waits for admission; coarse */
  #payloadSinceMs = 0;
  #replySinceMs = 0;
  #replyBatches = 0;
  #waitingSinceMs = 0;

  constructor(options: TransmissionOptions) {
    this.#options = options;
    this.#session = options.session;
    this.#volume = options.session.export.volume;
    this.#context = options.context;
    const pool = options.context.outBuffers;
    this.#queue = new ReplyQueue({ socket: options.socket, pool, onSent: this.#onSent });
  }

  get session(): NbdSession {
    return this.#session;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Bytes from the socket. Borrows the chunk for as long as a payload in it is being written. */
  push(chunk: Buffer): void {
    if (this.#state !== 'open') return;
    const leftBytes = this.#input.length - this.#at;
    this.#input = leftBytes === 0 ? chunk : Buffer.concat([this.#input.subarray(this.#at), chunk]);
    this.#at = 0;
    this.#run();
  }

  /** Reads no new request; `onFinished` follows once all is answered and sent. Idempotent. */
  finish(): void {
    if (this.#state !== 'open') return;
    this.#state = 'finishing';
    this.#input = NOTHING;
    this.#at = 0;
    this.#dropReceiving();
    this.#options.socket.pause();
    this.#settle();
  }

  /** The socket is closed: gives back what replies borrowed. */
  closed(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#input = NOTHING;
    this.#at = 0;
    this.#dropReceiving();
    this.#queue.close();
    this.#releaseSent();
    this.#settle();
  }

  /** How long the peer has owed us something without moving. Called by the sweep, with time
   *  passing between calls. */
  stalledMs(nowMs: number): number {
    const owesPayload = this.#payload !== undefined && this.#blocked === 'no';
    if (!owesPayload) this.#payloadSinceMs = nowMs;
    if (!this.#queue.writing || this.#replyBatches !== this.#queue.batches) {
      this.#replyBatches = this.#queue.batches;
      this.#replySinceMs = nowMs;
    }
    return nowMs - Math.min(this.#payloadSinceMs, this.#replySinceMs);
  }

  /** How long a request of this connection has waited for admission. */
  waitingMs(nowMs: number): number {
    return this.#blocked === 'admission' ? nowMs - this.#waitingSinceMs : 0;
  }

  #run(): void {
    while (this.#state === 'open' && this.#blocked === 'no') {
      if (this.#payload !== undefined) {
        if (!this.#receive(this.#payload)) break;
      } else if (this.#discardBytes > 0) {
        if (!this.#discard()) break;
      } else {
        if (!this.#headerReady && !this.#takeHeader()) break;
        this.#accept();
      }
    }
    if (this.#state !== 'open') return;
    if (this.#blocked === 'no') {
      this.#input = NOTHING;
      this.#at = 0;
      if (this.#paused) {
        this.#paused = false;
        this.#options.socket.resume();
      }
    } else if (!this.#paused) {
      this.#paused = true;
      this.#options.socket.pause();
    }
  }

  #takeHeader(): boolean {
    const leftBytes = this.#input.length - this.#at;
    let bytes = this.#input;
    let at = this.#at;
    if (this.#carriedBytes > 0 || leftBytes < REQUEST_BYTES) {
      if (leftBytes === 0) return false;
      this.#carry ??= Buffer.allocUnsafeSlow(REQUEST_BYTES);
      const copied = this.#input.copy(this.#carry, this.#carriedBytes, this.#at);
      this.#carriedBytes += copied;
      this.#at += copied;
      if (this.#carriedBytes < REQUEST_BYTES) return false;
      this.#carriedBytes = 0;
      bytes = this.#carry;
      at = 0;
    } else {
      this.#at += REQUEST_BYTES;
    }
    if (!decodeRequest(bytes, at, this.#header)) {
      this.#break('bad request magic');
      return false;
    }
    this.#headerReady = true;
    return true;
  }

  #break(reason: string): void {
    this.#state = 'finishing';
    this.#options.onBroken(reason);
  }

  /** Starts or refuses the decoded request, or leaves it for later and blocks. */
  #accept(): void {
    const header = this.#header;
    const { type, lengthBytes } = header;
    if (type === COMMAND.DISC) {
      this.finish();
      return;
    }
    if (type === COMMAND.WRITE && lengthBytes > REQUEST_BYTES_MAX) {
      this.#break(`write of ${lengthBytes} bytes`);
      return;
    }
    const { inFlightMax, replyBytesMax } = this.#context.limits;
    const owedBytes = this.#queue.unsentBytes + this.#readBytes;
    const moreBytes = type === COMMAND.READ ? Math.min(lengthBytes, REQUEST_BYTES_MAX) : 0;
    const isOverReplies = owedBytes > 0 && owedBytes + moreBytes > replyBytesMax;
    if (this.#inFlight >= inFlightMax || isOverReplies) {
      this.#blocked = 'flow';
      return;
    }
    this.#headerReady = false;
    const refusal = checkRequest(header, this.#session, this.#volume.sizeBytes);
    if (refusal !== 0) {
      this.#refuse(refusal);
      return;
    }
    if (type === COMMAND.CACHE || (lengthBytes === 0 && type !== COMMAND.FLUSH)) {
      if (type === COMMAND.READ && this.#session.structured) reply.writeNone(this.#queue, header);
      else reply.writeDone(this.#queue, header);
      this.#queue.flushLater();
      return;
    }
    const request = this.#context.requests.take(this, header);
    this.#inFlight += 1;
    if (type === COMMAND.WRITE) this.#beginWrite(request);
    else if (this.#enter(request)) startRequest(this.#volume, request);
  }

  #refuse(number: number): void {
    const answer = { number, text: 'refused' };
    if (this.#header.type === COMMAND.WRITE && this.#header.lengthBytes > 0) {
      this.#discardBytes = this.#header.lengthBytes;
      this.#discardAnswer = answer;
      return;
    }
    reply.writeError(this.#queue, this.#header, {
      ...answer,
      structured: this.#answersStructured(this.#header.type),
    });
    this.#queue.flushLater();
  }

  #answersStructured(type: number): boolean {
    if (!this.#session.structured) return false;
    return type === COMMAND.READ || type === COMMAND.BLOCK_STATUS;
  }

  #discard(): boolean {
    const skipped = Math.min(this.#discardBytes, this.#input.length - this.#at);
    this.#discardBytes -= skipped;
    this.#at += skipped;
    if (this.#discardBytes > 0) return false;
    const answer = this.#discardAnswer;
    assert(answer !== undefined);
    reply.writeError(this.#queue, this.#header, { ...answer, structured: false });
    this.#queue.flushLater();
    return true;
  }

  #beginWrite(request: PendingRequest): void {
    const { lengthBytes } = request;
    if (this.#input.length - this.#at >= lengthBytes) {
      request.pieces = [this.#input.subarray(this.#at, this.#at + lengthBytes)];
      this.#at += lengthBytes;
      if (this.#enter(request)) startRequest(this.#volume, request);
      return;
    }
    this.#receiving = request;
    this.#payload = new Payload(lengthBytes);
    this.#payloadSinceMs = this.#context.nowMs;
    this.#progressBytes = 0;
    if (lengthBytes <= this.#context.limits.smallPayloadBytes) return;
    if (this.#context.payloadBudget.tryAcquire(lengthBytes)) {
      this.#budgetBytes = lengthBytes;
      this.#enter(request);
    } else {
      void this.#enterAfterBudget(request);
    }
  }

  /** False: the payload is not complete yet. */
  #receive(payload: Payload): boolean {
    const takenBytes = payload.take(this.#input, this.#at);
    this.#at += takenBytes;
    this.#progressBytes += takenBytes;
    if (this.#progressBytes >= PROGRESS_BYTES) {
      this.#progressBytes = 0;
      this.#payloadSinceMs = this.#context.nowMs;
    }
    if (payload.leftBytes > 0) return false;
    const request = this.#receiving;
    assert(request !== undefined);
    request.pieces = payload.pieces;
    this.#endReceiving();
    if (request.admittedBytes >= 0 || this.#enter(request)) startRequest(this.#volume, request);
    return true;
  }

  #endReceiving(): void {
    this.#receiving = undefined;
    this.#payload = undefined;
    if (this.#budgetBytes > 0) this.#context.payloadBudget.release(this.#budgetBytes);
    this.#budgetBytes = 0;
  }

  /** Gives up a WRITE whose payload will not come. One that waits for admission gives up when the
   *  wait ends. */
  #dropReceiving(): void {
    const request = this.#receiving;
    if (request === undefined || this.#blocked === 'admission') return;
    this.#endReceiving();
    this.#retire(request);
  }

  /** True: admitted. False: blocked until it is. */
  #enter(request: PendingRequest): boolean {
    const carries = request.type === COMMAND.READ || request.type === COMMAND.WRITE;
    const units = carries ? request.lengthBytes : 0;
    let wait: Promise<void> | undefined;
    try {
      wait = this.#volume.enter(units);
    } catch (error) {
      wait = Promise.reject(error);
    }
    if (wait === undefined) {
      this.#admitted(request, units);
      return true;
    }
    void this.#enterLater(request, units, wait);
    return false;
  }

  #admitted(request: PendingRequest, units: number): void {
    request.admittedBytes = units;
    if (request.type === COMMAND.READ) this.#readBytes += units;
  }

  async #enterAfterBudget(request: PendingRequest): Promise<void> {
    const { lengthBytes } = request;
    const wait = this.#context.payloadBudget.acquire(lengthBytes).then(() => {
      this.#budgetBytes = lengthBytes;
      if (this.#state !== 'open') throw new StorageError('CLOSED', 'the connection is closed');
      return this.#volume.enter(lengthBytes);
    });
    await this.#enterLater(request, lengthBytes, wait);
  }

  async #enterLater(request: PendingRequest, units: number, wait: Promise<void>): Promise<void> {
    this.#blocked = 'admission';
    this.#waitingSinceMs = this.#context.nowMs;
    let failure: unknown;
    try {
      await wait;
      this.#admitted(request, units);
    } catch (error) {
      failure = error ?? new Error('admission failed');
    }
    this.#blocked = 'no';
    this.#payloadSinceMs = this.#context.nowMs;
    if (this.#state !== 'open') {
      if (request === this.#receiving) this.#endReceiving();
      this.#retire(request);
      this.#settle();
      return;
    }
    if (failure !== undefined) this.#failAdmission(request, failure);
    else if (request !== this.#receiving) startRequest(this.#volume, request);
    this.#run();
  }

  #failAdmission(request: PendingRequest, failure: unknown): void {
    if (request !== this.#receiving) {
      this.onFailed(request, failure);
      return;
    }
    // `#header` is still the one of this request: nothing was decoded since
    this.#discardBytes = this.#payload?.leftBytes ?? 0;
    this.#discardAnswer = errorAnswer(failure, NBD_ERROR.ENOSPC);
    this.#endReceiving();
    this.#retire(request);
  }

  onReadDone(request: PendingRequest, result: ReadResult): void {
    this.#readBytes -= request.lengthBytes;
    if (this.#state === 'closed') {
      result.release();
      this.#retire(request);
      this.#settle();
      return;
    }
    const copied = reply.writeRead(this.#queue, request, result, this.#session.structured);
    if (copied) result.release();
    else request.result = result;
    request.endsAt = this.#queue.appendedBytes;
    this.#unsentReads.push(request);
    this.#answered();
  }

  onStatusDone(request: PendingRequest, runs: readonly StatusRun[]): void {
    assert(runs.length > 0 && runs.length <= reply.STATUS_RUNS_MAX, 'the volume kept runsMax');
    if (this.#state !== 'closed') reply.writeStatus(this.#queue, request, runs);
    this.#retireAnswered(request);
  }

  onDone(request: PendingRequest): void {
    if (this.#state !== 'closed') reply.writeDone(this.#queue, request);
    this.#retireAnswered(request);
  }

  onFailed(request: PendingRequest, error: unknown): void {
    const { type, admittedBytes } = request;
    if (type === COMMAND.READ && admittedBytes >= 0) this.#readBytes -= request.lengthBytes;
    if (this.#state !== 'closed') {
      const grows = type === COMMAND.WRITE || type === COMMAND.WRITE_ZEROES;
      const answer = errorAnswer(error, grows ? NBD_ERROR.ENOSPC : NBD_ERROR.EINVAL);
      this.#context.noteFailure(error, this.#session.export.name, request);
      const structured = this.#answersStructured(type);
      reply.writeError(this.#queue, request, { ...answer, structured });
    }
    this.#retireAnswered(request);
  }

  #retireAnswered(request: PendingRequest): void {
    this.#giveBack(request);
    this.#answered();
  }

  #answered(): void {
    this.#inFlight -= 1;
    if (this.#blocked === 'flow') this.#unblock();
    if (this.#inFlight === 0) this.#queue.flush();
    else this.#queue.flushLater();
    if (this.#state !== 'open') this.#settle();
  }

  #unblock(): void {
    this.#blocked = 'no';
    this.#run();
  }

  /** For a request that gets no answer. */
  #retire(request: PendingRequest): void {
    this.#giveBack(request);
    this.#inFlight -= 1;
  }

  #giveBack(request: PendingRequest): void {
    if (request.admittedBytes >= 0) this.#volume.leave(request.admittedBytes);
    this.#context.requests.give(request);
  }

  readonly #onSent = (): void => {
    this.#releaseSent();
    if (this.#blocked === 'flow') this.#unblock();
    if (this.#state !== 'open') this.#settle();
  };

  #releaseSent(): void {
    const { sentBytes } = this.#queue;
    for (;;) {
      const request = this.#unsentReads.takeSent(sentBytes);
      if (request === undefined) return;
      request.result?.release();
      this.#giveBack(request);
    }
  }

  #settle(): void {
    if (this.#inFlight > 0) return;
    if (this.#state === 'closed') this.#options.onSettled();
    else if (this.#queue.unsentBytes === 0) this.#options.onFinished();
  }
}
