/**
 * A TCP proxy on loopback that spoils what passes: late, slow, held back, cut in the middle of a
 * message by FIN or RST, one bit changed, recorded for a replay. Needs no root.
 *
 * Directions: `up` from the client (an engine) to the server (a replica daemon), `down` back.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export type Direction = 'up' | 'down';

/** What is done to one direction of every connection, now and later. */
interface Spoiling {
  delayMs: number;
  bytesPerSecond: number;
  /** bytes wait here, as in a network that will deliver them once it is healed */
  held: boolean;
  /** done once, after so many more bytes */
  next: { afterBytes: number; act: 'fin' | 'rst' | 'flip' } | undefined;
}

export interface RecordedConnection {
  readonly up: Buffer[];
  readonly down: Buffer[];
}

/** Per direction of a connection; above it the sender is not read. */
const QUEUED_BYTES_MAX = 8 << 20;
const PART_ARRIVES_MS = 20;

export class TcpProxy {
  readonly #server: Server;
  readonly #links = new Set<ProxiedConnection>();
  readonly #spoiling: Record<Direction, Spoiling> = { up: clean(), down: clean() };
  /** every connection so far, if recording */
  recorded: RecordedConnection[] | undefined;
  /** new connections are closed at once */
  refuses = false;
  /** bytes that were changed */
  flips = 0;

  /** @param target where the server listens, `unix:PATH` or HOST:PORT; may change: a daemon that
   *  was started again may have another port */
  private constructor(public target: string) {
    this.#server = createServer((client) => this.#onClient(client));
  }

  static async listen(target: string): Promise<TcpProxy> {
    const proxy = new TcpProxy(target);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen(0, '127.0.0.1', () => resolve());
    });
    return proxy;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get connections(): number {
    return this.#links.size;
  }

  /** What passes from now on takes longer. */
  shape(shape: { delayMs?: number; bytesPerSecond?: number }): void {
    for (const spoiling of Object.values(this.#spoiling)) {
      spoiling.delayMs = shape.delayMs ?? 0;
      spoiling.bytesPerSecond = shape.bytesPerSecond ?? Number.POSITIVE_INFINITY;
    }
  }

  /** Nothing of the direction arrives until it is let go; then all of it does. */
  hold(direction: Direction, held: boolean): void {
    this.#spoiling[direction].held = held;
    if (!held) for (const link of this.#links) link.pump(direction);
  }

  /** Once, after so many more bytes of the direction: ends the connection, or changes one bit. */
  spoil(direction: Direction, act: 'fin' | 'rst' | 'flip', afterBytes: number): void {
    this.#spoiling[direction].next = { act, afterBytes };
  }

  /** True once what `spoil` ordered has happened. */
  spoiled(direction: Direction): boolean {
    return this.#spoiling[direction].next === undefined;
  }

  /** Ends every connection. */
  cut(how: 'fin' | 'rst'): void {
    for (const link of [...this.#links]) link.end(how);
  }

  async close(): Promise<void> {
    this.cut('rst');
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #onClient(client: Socket): void {
    if (this.refuses) {
      client.resetAndDestroy();
      return;
    }
    const record: RecordedConnection = { up: [], down: [] };
    this.recorded?.push(record);
    const link = new ProxiedConnection(client, dial(this.target), {
      spoiling: this.#spoiling,
      onBytes: (direction, bytes) => {
        if (this.recorded !== undefined) record[direction].push(bytes);
      },
      onFlip: () => {
        this.flips += 1;
      },
      onGone: () => this.#links.delete(link),
    });
    this.#links.add(link);
  }
}

function dial(target: string): Socket {
  if (target.startsWith('unix:')) return connect(target.substring(5));
  const [host = '', port = ''] = target.split(':');
  return connect(Number(port), host);
}

function clean(): Spoiling {
  const bytesPerSecond = Number.POSITIVE_INFINITY;
  return { delayMs: 0, bytesPerSecond, held: false, next: undefined };
}

interface LinkEvents {
  readonly spoiling: Record<Direction, Spoiling>;
  readonly onBytes: (direction: Direction, bytes: Buffer) => void;
  readonly onFlip: () => void;
  readonly onGone: () => void;
}

interface Lane {
  readonly from: Socket;
  readonly to: Socket;
  readonly queue: Array<{ bytes: Buffer; dueMs: number }>;
  queuedBytes: number;
  lastDueMs: number;
  timer: NodeJS.Timeout | undefined;
  ended: boolean;
}

class ProxiedConnection {
  readonly #lanes: Record<Direction, Lane>;
  readonly #events: LinkEvents;
  /** a part of a message was passed on, the end follows */
  #stopped = false;
  #gone = false;

  constructor(client: Socket, server: Socket, events: LinkEvents) {
    this.#events = events;
    this.#lanes = { up: lane(client, server), down: lane(server, client) };
    for (const direction of ['up', 'down'] as const) this.#start(direction);
  }

  #start(direction: Direction): void {
    const { from, to } = this.#lanes[direction];
    from.setNoDelay(true);
    from.on('data', (bytes: Buffer) => this.#onData(direction, bytes));
    from.on('end', () => {
      this.#lanes[direction].ended = true;
      this.pump(direction);
    });
    from.on('error', () => this.end('rst'));
    from.on('close', () => {
      if (this.#lanes[direction].queue.length === 0) this.end('fin');
    });
    to.on('drain', () => this.pump(direction));
  }

  #onData(direction: Direction, bytes: Buffer): void {
    const { delayMs, bytesPerSecond } = this.#events.spoiling[direction];
    const here = this.#lanes[direction];
    this.#events.onBytes(direction, bytes);
    const now = performance.now();
    const startMs = Math.max(now, here.lastDueMs - delayMs);
    here.lastDueMs = startMs + (bytes.length / bytesPerSecond) * 1000 + delayMs;
    here.queue.push({ bytes, dueMs: here.lastDueMs });
    here.queuedBytes += bytes.length;
    if (here.queuedBytes > QUEUED_BYTES_MAX) here.from.pause();
    this.pump(direction);
  }

  /** Passes on what is due. */
  pump(direction: Direction): void {
    const here = this.#lanes[direction];
    clearTimeout(here.timer);
    while (!this.#gone && !this.#stopped && !this.#events.spoiling[direction].held) {
      const head = here.queue[0];
      if (head === undefined) {
        if (here.ended) here.to.end();
        return;
      }
      const waitMs = head.dueMs - performance.now();
      if (waitMs > 0) {
        here.timer = setTimeout(() => this.pump(direction), waitMs);
        return;
      }
      here.queue.shift();
      here.queuedBytes -= head.bytes.length;
      if (here.queuedBytes <= QUEUED_BYTES_MAX) here.from.resume();
      if (!this.#pass(direction, head.bytes)) return;
    }
  }

  /** False when the receiver must drain first, or is gone. */
  #pass(direction: Direction, bytes: Buffer): boolean {
    const spoiling = this.#events.spoiling[direction];
    const { to } = this.#lanes[direction];
    const { next } = spoiling;
    if (next === undefined) return to.write(bytes);
    if (next.afterBytes >= bytes.length) {
      next.afterBytes -= bytes.length;
      return to.write(bytes);
    }
    spoiling.next = undefined;
    if (next.act === 'flip') {
      const changed = Buffer.from(bytes);
      changed[next.afterBytes] = (changed[next.afterBytes] ?? 0) ^ 0x10;
      this.#events.onFlip();
      return to.write(changed);
    }
    const act = next.act;
    to.write(bytes.subarray(0, next.afterBytes));
    // The part arrives first: who finds data and a reset together takes it for an ordinary end.
    this.#stopped = true;
    setTimeout(() => this.end(act), PART_ARRIVES_MS);
    return false;
  }

  end(how: 'fin' | 'rst'): void {
    if (this.#gone) return;
    this.#gone = true;
    for (const { from, timer } of Object.values(this.#lanes)) {
      clearTimeout(timer);
      // A unix socket knows no reset.
      if (how === 'fin') from.end(() => from.destroy());
      else if (from.remoteAddress === undefined) from.destroy();
      else from.resetAndDestroy();
    }
    this.#events.onGone();
  }
}

function lane(from: Socket, to: Socket): Lane {
  const queue: Lane['queue'] = [];
  return { from, to, queue, queuedBytes: 0, lastDueMs: 0, timer: undefined, ended: false };
}
