/**
 * The floor's engine: the least Node program that serves NBD and fans out to N replicas. It is a
 * yardstick, not a product.
 *
 * Requests travel on as they came, only the handle is exchanged for a slot number: writes and
 * flushes to every replica, reads to one. No checksums, no range lock, no epochs, no bounds but the
 * client's own queue depth; a replica that fails ends the process.
 *
 *   node floor-engine.js --socket PATH --size BYTES --replica HOST:PORT [--replica …]
 */
import assert from 'node:assert';
import { connect, createServer, type Socket } from 'node:net';
import { parseArgs } from 'node:util';
import { Handshake } from './handshake.js';
import { MessageCutter } from './message-cutter.js';
import {
  COMMAND,
  ERRNO,
  HANDLE_AT,
  PAYLOAD_BYTES_MAX,
  REPLY_BYTES,
  REPLY_MAGIC,
  REQUEST_BYTES,
  REQUEST_MAGIC,
} from './nbd-wire.js';
import { Outbox, Turn } from './outbox.js';

const SLOTS = 4096;

/** Who waits for which answer; a slot is taken from request to last answer. */
class SlotTable {
  readonly client: Array<Outbox | undefined> = new Array(SLOTS).fill(undefined);
  readonly handleHigh = new Uint32Array(SLOTS);
  readonly handleLow = new Uint32Array(SLOTS);
  readonly error = new Uint32Array(SLOTS);
  /** bytes that a good answer carries: the length of a read, else 0 */
  readonly readBytes = new Uint32Array(SLOTS);
  readonly answersMissing = new Uint8Array(SLOTS);
  readonly #free = Uint32Array.from({ length: SLOTS }, (_, index) => index);
  #freeCount = SLOTS;

  take(): number {
    assert(this.#freeCount > 0, `more than ${SLOTS} requests in flight`);
    this.#freeCount -= 1;
    return this.#free[this.#freeCount] as number;
  }

  give(slot: number): void {
    this.client[slot] = undefined;
    this.#free[this.#freeCount] = slot;
    this.#freeCount += 1;
  }
}

/** Requests of one client, passed on to lists of replicas. */
class RequestCutter extends MessageCutter<readonly Outbox[]> {
  constructor(
    readonly client: Outbox,
    readonly slots: SlotTable,
    readonly all: readonly Outbox[],
    readonly one: readonly Outbox[],
  ) {
    super(REQUEST_BYTES);
  }

  protected override header(bytes: Buffer, at: number): void {
    if (bytes.readUInt32BE(at) !== REQUEST_MAGIC) throw new Error('not an NBD request');
    const command = bytes.readUInt16BE(at + 6);
    const lengthBytes = bytes.readUInt32BE(at + 24);
    const high = bytes.readUInt32BE(at + HANDLE_AT);
    const low = bytes.readUInt32BE(at + HANDLE_AT + 4);
    this.payloadBytes = command === COMMAND.WRITE ? lengthBytes : 0;
    this.route = undefined;
    if (command === COMMAND.DISCONNECT) {
      this.client.socket.end();
      return;
    }
    if (command > COMMAND.FLUSH || lengthBytes > PAYLOAD_BYTES_MAX) {
      this.client.reply(ERRNO.EINVAL, high, low);
      return;
    }
    const slots = this.slots;
    const slot = slots.take();
    this.route = command === COMMAND.READ ? this.one : this.all;
    slots.client[slot] = this.client;
    slots.handleHigh[slot] = high;
    slots.handleLow[slot] = low;
    slots.error[slot] = 0;
    slots.readBytes[slot] = command === COMMAND.READ ? lengthBytes : 0;
    slots.answersMissing[slot] = this.route.length;
    bytes.writeUInt32BE(0, at + HANDLE_AT);
    bytes.writeUInt32BE(slot, at + HANDLE_AT + 4);
  }

  protected override emit(replicas: readonly Outbox[], view: Buffer): void {
    for (const replica of replicas) replica.push(view);
  }
}

/** Answers of one replica: counted for writes and flushes, passed on for reads. */
class AnswerCutter extends MessageCutter<Outbox> {
  constructor(readonly slots: SlotTable) {
    super(REPLY_BYTES);
  }

  protected override header(bytes: Buffer, at: number): void {
    assert(bytes.readUInt32BE(at) === REPLY_MAGIC);
    const slots = this.slots;
    const slot = bytes.readUInt32BE(at + HANDLE_AT + 4);
    const error = bytes.readUInt32BE(at + 4);
    const client = slots.client[slot];
    assert(client !== undefined, `answer for free slot ${slot}`);
    const readBytes = slots.readBytes[slot] as number;
    const high = slots.handleHigh[slot] as number;
    const low = slots.handleLow[slot] as number;
    this.payloadBytes = 0;
    this.route = undefined;
    if (readBytes > 0) {
      bytes.writeUInt32BE(high, at + HANDLE_AT);
      bytes.writeUInt32BE(low, at + HANDLE_AT + 4);
      this.payloadBytes = error === 0 ? readBytes : 0;
      this.route = client;
      slots.give(slot);
      return;
    }
    if (error !== 0) slots.error[slot] = error;
    const missing = (slots.answersMissing[slot] as number) - 1;
    slots.answersMissing[slot] = missing;
    if (missing > 0) return;
    client.reply(slots.error[slot] as number, high, low);
    slots.give(slot);
  }

  protected override emit(client: Outbox, view: Buffer): void {
    client.push(view);
  }
}

function connectReplica(address: string): Promise<Socket> {
  const colon = address.lastIndexOf(':');
  return new Promise((resolve, reject) => {
    const socket = connect(Number(address.slice(colon + 1)), address.slice(0, colon));
    socket.setNoDelay(true);
    socket.once('connect', () => resolve(socket));
    socket.once('error', reject);
  });
}

function serveClient(socket: Socket, sizeBytes: number, open: () => RequestCutter): void {
  let cutter: RequestCutter | undefined;
  const handshake = new Handshake(sizeBytes, (bytes) => socket.write(bytes));
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    try {
      if (cutter !== undefined) {
        cutter.push(chunk);
        return;
      }
      const result = handshake.push(chunk);
      if (result.state === 'closed') socket.destroy();
      if (result.state !== 'transmission') return;
      cutter = open();
      if (result.rest.length > 0) cutter.push(result.rest);
    } catch (error) {
      process.stderr.write(`floor engine: client dropped: ${String(error)}\n`);
      socket.destroy();
    }
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      socket: { type: 'string' },
      size: { type: 'string' },
      replica: { type: 'string', multiple: true },
    },
  });
  const path = values.socket ?? '';
  const sizeBytes = Number(values.size);
  assert(path !== '' && Number.isSafeInteger(sizeBytes), 'usage: --socket PATH --size BYTES');
  const turn = new Turn();
  const slots = new SlotTable();
  const replicas: Outbox[] = [];
  for (const address of values.replica ?? []) {
    const socket = await connectReplica(address);
    const answers = new AnswerCutter(slots);
    socket.on('data', (chunk: Buffer) => answers.push(chunk));
    socket.on('close', () => process.exit(1));
    replicas.push(new Outbox(socket, turn));
  }
  assert(replicas.length > 0, 'at least one --replica is needed');
  const one = replicas.slice(0, 1);
  const server = createServer((socket) => {
    serveClient(socket, sizeBytes, () => {
      return new RequestCutter(new Outbox(socket, turn), slots, replicas, one);
    });
  });
  server.listen(path, () => process.stdout.write(`ready nbd+unix:///?socket=${path}\n`));
  process.once('SIGTERM', () => process.exit(0));
}

await main();
