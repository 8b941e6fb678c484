/**
 * NBD client of the device frontend: one export, one or several connections, requests that outlive
 * an engine.
 *
 * Each connection is a lane that reconnects by itself (nbd-lane.ts has the argument for sending
 * again). Several lanes are used only if the server says CAN_MULTI_CONN, because a FLUSH goes on
 * one of them and must cover all.
 */
import { stat } from 'node:fs/promises';
import type { Clock, Timer } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { COMMAND, REQUEST_BYTES, TRANSMISSION_FLAG } from '../nbd/constants.js';
import { NbdConnection } from './nbd-connection.js';
import { NbdLane, type NbdLaneOptions } from './nbd-lane.js';
import { NbdRequest } from './nbd-request.js';
import type { ExportInfo } from './nbd-wire.js';
import { WriteOrder } from './write-order.js';

/** How often a client whose requests stand still looks whether another server took over. */
const TAKEOVER_CHECK_MS = 2000;

export interface NbdClientOptions {
  readonly socketPath: string;
  readonly exportName: string;
  readonly log: Logger;
  readonly clock: Clock;
  /** connections wanted; 1 is used when the server has no CAN_MULTI_CONN */
  readonly connections: number;
  /** connect and negotiation of one attempt */
  readonly connectTimeoutMs: number;
  /** see NbdLaneOptions.giveUpMs */
  readonly giveUpMs: number;
  /** unanswered requests at most; the caller bounds itself */
  readonly requestsMax: number;
  /** longest READ that will be asked for */
  readonly readBytesMax: number;
  /** default 2 s */
  readonly takeoverCheckMs?: number;
}

export class NbdClient {
  readonly #options: NbdClientOptions;
  readonly #order: WriteOrder<NbdRequest>;
  readonly #lanes: NbdLane[] = [];
  #info: ExportInfo;
  #next = 0;
  #unanswered = 0;
  #socketIdentity = '';
  #takeoverTimer: Timer | undefined;
  #answered = 0;
  #answeredAtCheck = -1;

  /** Opens the export. One attempt per connection; a caller that wants to wait for the engine tries
   *  again.
   *  @throws StorageError UNAVAILABLE | NOT_FOUND | PROTOCOL_ERROR | DEADLINE */
  static async connect(options: NbdClientOptions): Promise<NbdClient> {
    const identity = await identityOf(options.socketPath);
    const first = await NbdConnection.open(connectionOptions(options), 'go');
    const client = new NbdClient(options, first.info);
    client.#socketIdentity = identity;
    client.#addLane(first.connection);
    const multi = (first.info.flags & TRANSMISSION_FLAG.CAN_MULTI_CONN) !== 0;
    for (let i = 1; multi && i < options.connections; i += 1) {
      const further = await NbdConnection.open(connectionOptions(options), 'go');
      client.#addLane(further.connection);
    }
    client.#armTakeoverCheck();
    return client;
  }

  private constructor(options: NbdClientOptions, info: ExportInfo) {
    this.#options = options;
    this.#info = info;
    this.#order = new WriteOrder(options.requestsMax);
  }

  /** What the server said last; the size never shrinks. */
  get info(): ExportInfo {
    return this.#info;
  }
  /** requests taken and not answered, held ones included */
  get unanswered(): number {
    return this.#unanswered;
  }
  get connected(): boolean {
    return this.#lanes.every((lane) => lane.connected);
  }
  get connectionCount(): number {
    return this.#lanes.length;
  }
  get reconnects(): number {
    return this.#lanes.reduce((sum, lane) => sum + lane.reconnects, 0);
  }

  /** Takes a request: `complete` is called exactly once, maybe before this returns. Sent at the
   *  next `flush`. The caller keeps its requests at or below `requestsMax`; more is a programmer
   *  error and asserts. */
  submit(request: NbdRequest): void {
    this.#unanswered += 1;
    if (request.isChange && !this.#order.begin(request)) return;
    this.#send(request);
  }

  /** Sends what was submitted; called once per turn of the event loop. */
  flush(): void {
    for (const lane of this.#lanes) lane.flush();
  }

  /** Flushes the volume: everything answered before is durable afterwards (D1). @throws
   *  StorageError IO_ERROR */
  flushVolume(): Promise<void> {
    if ((this.#info.flags & TRANSMISSION_FLAG.SEND_FLUSH) === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.submit(
        new FlushRequest((errno) => {
          if (errno === 0) resolve();
          else
            reject(
              new StorageError('IO_ERROR', `flush failed with errno ${errno}`, {
                errno: String(errno),
              }),
            );
        }),
      );
      this.flush();
    });
  }

  /** Asks a fresh connection for the export, and if the size changed replaces all connections, so
   *  that requests up to the new end are accepted. Requests wait meanwhile; none fails. Returns the
   *  present description.
   *  @throws StorageError as `connect`, or CONFLICT when the export shrank */
  async refresh(): Promise<ExportInfo> {
    const { info } = await NbdConnection.open(connectionOptions(this.#options), 'info');
    this.#checkExport(info);
    if (info.sizeBytes !== this.#info.sizeBytes) {
      for (const lane of this.#lanes) await lane.renew();
    }
    return this.#info;
  }

  /** Ends all connections; what is unanswered ends with EIO. */
  close(): void {
    this.#takeoverTimer?.cancel();
    this.#takeoverTimer = undefined;
    for (const lane of this.#lanes) lane.end();
  }

  #addLane(connection: NbdConnection): void {
    const options: NbdLaneOptions = {
      ...connectionOptions(this.#options),
      log: this.#options.log,
      requestsMax: this.#options.requestsMax,
      giveUpMs: this.#options.giveUpMs,
      checkExport: (info) => {
        this.#checkExport(info);
        this.#info = info;
        void this.#noteIdentity();
      },
      onSettled: (request, errno, reply) => this.#onSettled(request, errno, reply),
    };
    const lane = new NbdLane(options);
    this.#lanes.push(lane);
    lane.adopt(connection);
  }

  #send(request: NbdRequest): void {
    this.#next = (this.#next + 1) % this.#lanes.length;
    (this.#lanes[this.#next] as NbdLane).submit(request);
  }

  #onSettled(request: NbdRequest, errno: number, reply: Buffer | undefined): void {
    this.#unanswered -= 1;
    this.#answered += 1;
    const ready = request.isChange ? this.#order.finish(request) : undefined;
    request.complete(errno, reply);
    if (ready === undefined || ready.length === 0) return;
    for (const next of ready) this.#send(next);
    this.flush();
  }

  /** A volume does not lose writes under a device that has acknowledged them (D1). It does not
   *  shrink and does not turn read-only or writable under it: that is another volume (R8).
   *  @throws StorageError IO_INDETERMINATE (for good) | CONFLICT */
  #checkExport(info: ExportInfo): void {
    const before = this.#info;
    if (info.era !== before.era) {
      throw new StorageError(
        'IO_INDETERMINATE',
        `export "${this.#options.exportName}" may have lost acknowledged writes: ` +
          `era ${info.era ?? 'none'} now, ${before.era ?? 'none'} before`,
        { hint: 'unmount and detach the device, check the file system, attach it again' },
      );
    }
    if (info.sizeBytes < before.sizeBytes) {
      throw new StorageError(
        'CONFLICT',
        `export "${this.#options.exportName}" shrank from ${before.sizeBytes} to ${info.sizeBytes}`,
      );
    }
    let changed = (info.flags ^ before.flags) & TRANSMISSION_FLAG.READ_ONLY;
    if (this.#lanes.length > 1) changed |= ~info.flags & TRANSMISSION_FLAG.CAN_MULTI_CONN;
    if (changed !== 0 || info.blockBytesMin > before.blockBytesMin) {
      throw new StorageError('CONFLICT', `export "${this.#options.exportName}" is another one now`);
    }
  }

  async #noteIdentity(): Promise<void> {
    this.#socketIdentity = await identityOf(this.#options.socketPath);
  }

  /** An engine that hangs (stopped process) keeps its connections open. When requests stand still
   *  and the socket path belongs to another server, that server's engine fenced the hanging one:
   *  move over. */
  #armTakeoverCheck(): void {
    const check = (): void => {
      void this.#checkTakeover().then(() => {
        if (this.#takeoverTimer !== undefined) this.#armTakeoverCheck();
      });
    };
    const delayMs = this.#options.takeoverCheckMs ?? TAKEOVER_CHECK_MS;
    this.#takeoverTimer = this.#options.clock.after(delayMs, check, { background: true });
  }

  async #checkTakeover(): Promise<void> {
    const stuck = this.#unanswered > 0 && this.#answered === this.#answeredAtCheck;
    this.#answeredAtCheck = this.#answered;
    if (!stuck || !this.connected || this.#socketIdentity === '') return;
    const identity = await identityOf(this.#options.socketPath);
    if (identity === '' || identity === this.#socketIdentity) return;
    this.#socketIdentity = identity;
    for (const lane of this.#lanes) lane.abandon('another server took over the socket');
  }
}

/** A FLUSH of our own, not of the kernel. */
class FlushRequest extends NbdRequest {
  override readonly type = COMMAND.FLUSH;
  override readonly frame = Buffer.alloc(REQUEST_BYTES);

  constructor(private readonly onDone: (errno: number) => void) {
    super();
  }

  override holdFrame(): void {}
  override releaseFrame(): void {}
  override complete(errno: number): void {
    this.onDone(errno);
  }
}

function connectionOptions(options: NbdClientOptions) {
  return {
    socketPath: options.socketPath,
    exportName: options.exportName,
    clock: options.clock,
    timeoutMs: options.connectTimeoutMs,
    readBytesMax: options.readBytesMax,
  };
}

/** Names the socket file, or '' if there is none. */
async function identityOf(path: string): Promise<string> {
  try {
    const found = await stat(path, { bigint: true });
    return `${found.dev}:${found.ino}:${found.ctimeNs}`;
  } catch {
    return '';
  }
}
