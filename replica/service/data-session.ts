/**
 * One data stream of an engine: hello, then batches of requests; replies go back in batches.
 *
 * States: `hello` (nothing but a hello is accepted) -> `attaching` (an older stream of the same
 * engine drains) -> `serving` -> `closed`. Invariants:
 * - A request is received, then waits for memory (backlog) or runs at once. Once closed, what waits
 *   is dropped and nothing starts any more, also not what arrives late (P4); what runs ends, and
 *   `drained` resolves after it.
 * - Received and unanswered requests never exceed the advertised window, in count and in payload
 *   bytes; one more ends the stream with LIMIT_EXCEEDED. Memory is admitted before it is taken;
 *   while a request waits for it the stream is paused.
 */
import type { BufferPool } from '../../common/block-device.js';
import type { Clock, Timer } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import type { Semaphore } from '../../common/semaphore.js';
import { WIRE_IO_BYTES_MAX } from '../../common/units.js';
import {
  decodeIoBatch,
  encodeIoHelloReply,
  type IoBatchVisitor,
  type IoHello,
  type IoRequestView,
  PROTOCOL_VERSION,
} from '../../proto/io-codec.js';
import type {
  IncomingMessage,
  MessageStream,
  MessageStreamHandlers,
} from '../../proto/message-stream.js';
import type { ReplicaStore } from '../replica-store.js';
import type { InFlightWindow } from './in-flight-window.js';
import { type EndOfTurn, ReplyBatcher } from './reply-batcher.js';
import type { RequestContext } from './request-context.js';
import { RunningRequest } from './running-request.js';
import type { ServiceMetrics } from './service-metrics.js';

/** What an attached stream works on. */
export interface Attachment {
  readonly store: ReplicaStore;
  /** P7: of the replica as it is loaded now */
  readonly incarnation: string;
  readonly window: InFlightWindow;
  readonly epoch: number;
}

/** Finds the replica of a hello and makes the stream its only one. */
export type AttachStream = (session: DataSession, hello: IoHello) => Promise<Attachment>;

export interface DataSessionOptions {
  readonly stream: MessageStream;
  readonly attach: AttachStream;
  /** Called once, when the session is closed and nothing of it runs any more. */
  readonly onEnd: (session: DataSession) => void;
  readonly windowBytes: number;
  readonly windowRequests: number;
  /** admission in bytes, shared by all streams of the daemon */
  readonly memory: Semaphore;
  readonly pool: BufferPool;
  readonly metrics: ServiceMetrics;
  readonly clock: Clock;
  readonly endOfTurn: EndOfTurn;
  readonly log: Logger;
  /** from the stream's start to its hello; default 10 s */
  readonly helloMs?: number;
}

interface Waiting {
  readonly request: RunningRequest;
  readonly message: IncomingMessage;
}

const HELLO_MS = 10_000;
const PAUSED_FOR_MEMORY = 1;
const PAUSED_FOR_REPLIES = 2;

export class DataSession implements MessageStreamHandlers, IoBatchVisitor {
  readonly #options: DataSessionOptions;
  readonly #stream: MessageStream;
  readonly #replies: ReplyBatcher;
  readonly #helloTimer: Timer;
  readonly #drainWaiters: Array<() => void> = [];
  #state: 'hello' | 'attaching' | 'serving' | 'finishing' | 'closed' = 'hello';
  #context: RequestContext | undefined;
  #window: InFlightWindow | undefined;
  #message: IncomingMessage | undefined;
  #arrivedMs: number;
  #sentMs = 0;
  /** received and not answered */
  #requests = 0;
  #payloadBytes = 0;
  /** in the store */
  #running = 0;
  #backlog: Waiting[] = [];
  #free: RunningRequest[] = [];
  #paused = 0;
  #errors = 0;
  #ended = false;

  constructor(options: DataSessionOptions) {
    this.#options = options;
    this.#stream = options.stream;
    this.#arrivedMs = options.clock.nowMs();
    this.#replies = new ReplyBatcher({
      stream: options.stream,
      endOfTurn: options.endOfTurn,
      onFull: () => this.#pause(PAUSED_FOR_REPLIES),
      onBatch: (replies) => {
        this.#sentMs = options.clock.nowMs();
        options.metrics.batched(replies);
      },
    });
    this.#helloTimer = options.clock.after(
      options.helloMs ?? HELLO_MS,
      () => this.fence(new StorageError('DEADLINE', 'the stream sent no hello in time')),
      { background: true },
    );
  }

  get peer(): string {
    return this.#stream.peer;
  }

  get closed(): boolean {
    return this.#state === 'closed';
  }

  /** When a message was last received or sent, on the session's clock. */
  get lastActiveMs(): number {
    return Math.max(this.#arrivedMs, this.#sentMs);
  }

  /** Requests in the store. */
  get running(): number {
    return this.#running;
  }

  /** Ends the stream, drops what waits, starts nothing more; what runs in the store ends there.
   *  Idempotent. */
  fence(error: StorageError | undefined): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#helloTimer.cancel();
    this.#replies.close();
    this.#stream.close(error);
    this.#dropBacklog();
    this.#settle();
  }

  /** Resolves when a fenced session has nothing left in the store. */
  drained(): Promise<void> {
    if (this.#running === 0 && this.closed) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  /** For a daemon that stops: takes nothing more, answers what runs, then ends the stream in
   *  order. */
  async finish(): Promise<void> {
    if (this.#state === 'serving') {
      this.#state = 'finishing';
      this.#stream.pause();
      this.#dropBacklog();
      if (this.#running > 0) {
        await new Promise<void>((resolve) => this.#drainWaiters.push(resolve));
      }
      this.#replies.flush();
    }
    this.fence(undefined);
  }

  onMessage(message: IncomingMessage): void {
    if (this.#state === 'closed' || this.#state === 'finishing') return;
    this.#message = message;
    this.#arrivedMs = this.#options.clock.nowMs();
    try {
      decodeIoBatch(message.bytes, this);
    } catch (error) {
      this.#refuse(error);
    } finally {
      this.#message = undefined;
    }
  }

  onDrain(): void {
    this.#unpause(PAUSED_FOR_REPLIES);
  }

  onClose(error: StorageError | undefined): void {
    if (this.#state === 'serving') {
      this.#options.log.info({ peer: this.peer, code: error?.code }, 'data stream ended');
    }
    this.fence(error);
  }

  onHello(hello: IoHello): void {
    if (this.#state !== 'hello') throw protocolError('a second hello');
    this.#state = 'attaching';
    this.#helloTimer.cancel();
    this.#options.attach(this, hello).then(
      (attachment) => this.#serve(hello, attachment),
      (error: unknown) => this.#refuse(error),
    );
  }

  onAckedThrough(id: number): void {
    if (this.#state === 'closed') return;
    if (this.#state !== 'serving') throw protocolError('a batch before the reply to hello');
    this.#window?.ackThrough(id);
  }

  onRequest(view: IoRequestView): void {
    const context = this.#context;
    if (this.#state !== 'serving' || context === undefined) return;
    const request = this.#free.pop() ?? new RunningRequest(context);
    request.fill(view, this.#arrivedMs);
    this.#requests += 1;
    this.#payloadBytes += request.payloadBytes;
    const { windowBytes, windowRequests } = this.#options;
    if (this.#requests > windowRequests || this.#payloadBytes > windowBytes) {
      throw new StorageError(
        'LIMIT_EXCEEDED',
        `${this.#requests} requests with ${this.#payloadBytes} bytes in flight: ` +
          `the window is ${windowRequests} requests, ${windowBytes} bytes`,
      );
    }
    const message = this.#message as IncomingMessage;
    const units = request.memoryBytes;
    const admitted = units === 0 || (this.#backlog.length === 0 && this.#admit(units));
    if (admitted) this.#start(request, message, units);
    else this.#enqueue(request, message);
  }

  #serve(hello: IoHello, attachment: Attachment): void {
    if (this.#state !== 'attaching') return;
    this.#window = attachment.window;
    this.#context = this.#createContext(attachment);
    this.#state = 'serving';
    const { incarnation } = attachment;
    const { windowBytes, windowRequests } = this.#options;
    this.#sentMs = this.#options.clock.nowMs();
    const reply = { protocolVersion: PROTOCOL_VERSION, incarnation, windowBytes, windowRequests };
    this.#stream.send(encodeIoHelloReply(reply));
    this.#options.log.info(
      { peer: this.peer, volume: hello.volume, replica: hello.replicaId, epoch: hello.epoch },
      'data stream serves',
    );
  }

  #createContext(attachment: Attachment): RequestContext {
    const { metrics, pool, clock } = this.#options;
    return {
      store: attachment.store,
      window: attachment.window,
      epoch: attachment.epoch,
      replies: this.#replies,
      metrics,
      pool,
      clock,
      readBytesMax: WIRE_IO_BYTES_MAX,
      finished: (request) => this.#finished(request),
      recycle: (request, units) => this.#recycle(request, units),
      onError: (request, error) => this.#report(request, error),
    };
  }

  #admit(units: number): boolean {
    return this.#options.memory.tryAcquire(units);
  }

  #start(request: RunningRequest, message: IncomingMessage, units: number): void {
    this.#running += 1;
    request.start(message, units);
  }

  #finished(request: RunningRequest): void {
    this.#running -= 1;
    this.#requests -= 1;
    this.#payloadBytes -= request.payloadBytes;
    if (this.#running === 0) this.#settle();
  }

  #recycle(request: RunningRequest, units: number): void {
    if (this.#state === 'serving') this.#free.push(request);
    if (units > 0) this.#options.memory.release(units);
  }

  /** Memory is short: the stream pauses and its requests go on in order as memory comes back. */
  #enqueue(request: RunningRequest, message: IncomingMessage): void {
    message.retain();
    this.#backlog.push({ request, message });
    if (this.#backlog.length > 1) return;
    this.#pause(PAUSED_FOR_MEMORY);
    this.#awaitMemory(request.memoryBytes);
  }

  #awaitMemory(units: number): void {
    this.#options.memory.acquire(units).then(
      () => this.#startBacklog(units),
      (error: unknown) => this.#refuse(error),
    );
  }

  #startBacklog(held: number): void {
    let units = held;
    for (;;) {
      const next = this.#backlog.shift();
      if (next === undefined) {
        // Fenced while waiting: the units belong to nobody.
        if (units > 0) this.#options.memory.release(units);
        break;
      }
      this.#start(next.request, next.message, units);
      next.message.release();
      const following = this.#backlog[0];
      if (following === undefined) break;
      units = following.request.memoryBytes;
      if (!this.#admit(units)) {
        this.#awaitMemory(units);
        return;
      }
    }
    this.#unpause(PAUSED_FOR_MEMORY);
  }

  #pause(reason: number): void {
    if (this.#paused === 0) this.#stream.pause();
    this.#paused |= reason;
  }

  #unpause(reason: number): void {
    if ((this.#paused & reason) === 0) return;
    this.#paused &= ~reason;
    if (this.#paused === 0 && this.#state !== 'closed') this.#stream.resume();
  }

  /** The peer broke a rule, or the replica is not its: the stream ends with the reason. */
  #refuse(cause: unknown): void {
    if (this.#state === 'closed') return;
    const error = toStorageError(cause, 'data stream');
    this.#options.log.warn(
      { peer: this.peer, code: error.code, error: error.message },
      'data stream refused',
    );
    this.fence(error);
  }

  /** A flood of failing requests must not become a flood of log lines: 1st, 2nd, 4th, 8th … */
  #report(request: RunningRequest, error: StorageError): void {
    this.#errors += 1;
    if ((this.#errors & (this.#errors - 1)) !== 0) return;
    this.#options.log.warn(
      {
        peer: this.peer,
        volume: this.#context?.store.volume,
        replica: this.#context?.store.replicaId,
        replicaFailed: this.#context?.store.failedReason,
        op: request.op,
        offsetBytes: request.offsetBytes,
        lengthBytes: request.lengthBytes,
        code: error.code,
        error: error.message,
        errors: this.#errors,
      },
      'request failed',
    );
  }

  #dropBacklog(): void {
    for (const { request, message } of this.#backlog.splice(0)) {
      request.drop();
      message.release();
    }
  }

  #settle(): void {
    if (this.#running > 0) return;
    if (this.#drainWaiters.length > 0) for (const wake of this.#drainWaiters.splice(0)) wake();
    if (this.#ended || this.#state !== 'closed') return;
    this.#ended = true;
    this.#options.onEnd(this);
  }
}

function protocolError(what: string): StorageError {
  return new StorageError('PROTOCOL_ERROR', `data stream: ${what}`);
}
