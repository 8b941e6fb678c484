/**
 * Cuts a byte stream into messages of a fixed header and a payload, without copying.
 *
 * Neighbouring whole messages with the same route leave as one view; a message that arrives in
 * parts is held until it is whole, so that messages of several connections never mix on a socket.
 */

export abstract class MessageCutter<Route> {
  /** Set by `header`: where the message goes; undefined means that nothing of it is passed on. */
  protected route: Route | undefined;
  /** Set by `header`: bytes that follow the header. */
  protected payloadBytes = 0;

  readonly #headerBytes: number;
  /** parts of the one message that is not whole yet */
  #held: Buffer[] = [];
  #heldHeaderBytes = 0;
  #missingBytes = 0;

  constructor(headerBytes: number) {
    this.#headerBytes = headerBytes;
  }

  /** Reads the whole header at `at`, may change it in place, sets `route` and `payloadBytes`. */
  protected abstract header(bytes: Buffer, at: number): void;

  /** Takes whole messages, or the next part of one (all its parts come in a row). */
  protected abstract emit(route: Route, view: Buffer): void;

  push(chunk: Buffer): void {
    let at = this.#held.length > 0 ? this.#pushHeld(chunk) : 0;
    let runStart = at;
    let runRoute: Route | undefined;
    while (chunk.length - at >= this.#headerBytes) {
      this.header(chunk, at);
      const end = at + this.#headerBytes + this.payloadBytes;
      if (end > chunk.length) {
        this.#emitRun(chunk, runStart, at, runRoute);
        this.#held.push(chunk.subarray(at));
        this.#heldHeaderBytes = this.#headerBytes;
        this.#missingBytes = end - chunk.length;
        return;
      }
      if (this.route !== runRoute) {
        this.#emitRun(chunk, runStart, at, runRoute);
        runStart = at;
        runRoute = this.route;
      }
      at = end;
    }
    this.#emitRun(chunk, runStart, at, runRoute);
    if (at < chunk.length) {
      this.#held.push(chunk.subarray(at));
      this.#heldHeaderBytes = chunk.length - at;
    }
  }

  #emitRun(chunk: Buffer, start: number, end: number, route: Route | undefined): void {
    if (route !== undefined && end > start) this.emit(route, chunk.subarray(start, end));
  }

  /** Completes the held message from the start of `chunk`; returns how much of it was used. */
  #pushHeld(chunk: Buffer): number {
    let at = 0;
    if (this.#heldHeaderBytes < this.#headerBytes) {
      at = Math.min(this.#headerBytes - this.#heldHeaderBytes, chunk.length);
      const header = Buffer.concat([...this.#held, chunk.subarray(0, at)]);
      this.#held = [header];
      this.#heldHeaderBytes = header.length;
      if (header.length < this.#headerBytes) return at;
      this.header(header, 0);
      this.#missingBytes = this.payloadBytes;
    }
    const take = Math.min(this.#missingBytes, chunk.length - at);
    if (take > 0) this.#held.push(chunk.subarray(at, at + take));
    this.#missingBytes -= take;
    if (this.#missingBytes > 0) return at + take;
    const held = this.#held;
    this.#held = [];
    this.#heldHeaderBytes = 0;
    if (this.route !== undefined) for (const piece of held) this.emit(this.route, piece);
    return at + take;
  }
}
