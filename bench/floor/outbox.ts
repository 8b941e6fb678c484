/**
 * What one socket has to send in this turn of the event loop, sent in one system call at its end.
 *
 * Small things are copied side by side into a slab, large ones are passed by reference. Bytes
 * already handed to the socket are never touched again; a full slab is left to the collector.
 */
import type { Socket } from 'node:net';
import { REPLY_BYTES, REPLY_MAGIC } from './nbd-wire.js';

const SLAB_BYTES = 128 * 1024;

/** Collects the outboxes that have something to send; one `setImmediate` a turn serves them all. */
export class Turn {
  #waiting: Outbox[] = [];

  add(outbox: Outbox): void {
    if (this.#waiting.length === 0) setImmediate(this.#run);
    this.#waiting.push(outbox);
  }

  readonly #run = (): void => {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const outbox of waiting) outbox.send();
  };
}

export class Outbox {
  #pieces: Buffer[] = [];
  #waits = false;
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #slabUsed = 0;
  /** start of the bytes in the slab that are not yet in `#pieces` */
  #slabSealed = 0;
  #onSent: Array<() => void> = [];

  constructor(
    readonly socket: Socket,
    readonly turn: Turn,
  ) {}

  /** Sends a view without a copy; nobody may change it until `onSent` calls back. */
  push(view: Buffer, onSent?: () => void): void {
    this.#seal();
    this.#pieces.push(view);
    if (onSent !== undefined) this.#onSent.push(onSent);
    this.#wait();
  }

  /** A simple reply with its handle and, copied, the small `data` behind it. */
  reply(error: number, handleHigh: number, handleLow: number, data?: Buffer): void {
    const at = this.#reserve(REPLY_BYTES + (data?.length ?? 0));
    const slab = this.#slab;
    slab.writeUInt32BE(REPLY_MAGIC, at);
    slab.writeUInt32BE(error, at + 4);
    slab.writeUInt32BE(handleHigh, at + 8);
    slab.writeUInt32BE(handleLow, at + 12);
    if (data !== undefined) data.copy(slab, at + REPLY_BYTES);
    this.#wait();
  }

  send(): void {
    this.#waits = false;
    this.#seal();
    const pieces = this.#pieces;
    this.#pieces = [];
    const last = pieces.length - 1;
    const sent = this.#takeOnSent();
    this.socket.cork();
    pieces.forEach((piece, index) => {
      if (index === last && sent !== undefined) this.socket.write(piece, sent);
      else this.socket.write(piece);
    });
    this.socket.uncork();
  }

  #takeOnSent(): (() => void) | undefined {
    if (this.#onSent.length === 0) return undefined;
    const callbacks = this.#onSent;
    this.#onSent = [];
    return () => {
      for (const callback of callbacks) callback();
    };
  }

  #wait(): void {
    if (this.#waits) return;
    this.#waits = true;
    this.turn.add(this);
  }

  #reserve(lengthBytes: number): number {
    if (this.#slabUsed + lengthBytes > SLAB_BYTES) {
      this.#seal();
      this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
      this.#slabUsed = 0;
      this.#slabSealed = 0;
    }
    const at = this.#slabUsed;
    this.#slabUsed += lengthBytes;
    return at;
  }

  #seal(): void {
    if (this.#slabSealed === this.#slabUsed) return;
    this.#pieces.push(this.#slab.subarray(this.#slabSealed, this.#slabUsed));
    this.#slabSealed = this.#slabUsed;
  }
}
