/** A request between its header and its reply. Pooled: no object and no closure per request on
 *  the hot path. */
import assert from 'node:assert';
import type { ReadResult, StatusRun } from '../block-volume.js';
import type { RequestHeader } from './request.js';

/** Who started the request and answers it. */
export interface RequestOwner {
  onReadDone(request: PendingRequest, result: ReadResult): void;
  onStatusDone(request: PendingRequest, runs: readonly StatusRun[]): void;
  /** WRITE, TRIM, WRITE_ZEROES, FLUSH */
  onDone(request: PendingRequest): void;
  onFailed(request: PendingRequest, error: unknown): void;
}

const NO_PIECES: Buffer[] = [];

export class PendingRequest implements RequestHeader {
  flags = 0;
  type = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offsetBytes = 0;
  lengthBytes = 0;
  /** units taken from the volume's admission, to be given back with `leave`; -1: none taken yet */
  admittedBytes = -1;
  /** WRITE: payload in order. Shared and empty for the rest. */
  pieces: Buffer[] = NO_PIECES;
  /** READ, from the volume's answer until the socket took it */
  result: ReadResult | undefined;
  /** READ: position in the connection's reply stream behind this reply */
  endsAt = 0;
  #owner: RequestOwner | undefined;

  readonly onRead = (result: ReadResult): void => this.#own().onReadDone(this, result);
  readonly onStatus = (runs: readonly StatusRun[]): void => this.#own().onStatusDone(this, runs);
  readonly onDone = (): void => this.#own().onDone(this);
  readonly onFailed = (error: unknown): void => this.#own().onFailed(this, error);

  #own(): RequestOwner {
    assert(this.#owner !== undefined, 'a request that is not running was answered');
    return this.#owner;
  }

  begin(owner: RequestOwner, header: RequestHeader): void {
    assert(this.#owner === undefined, 'a pooled request was in use');
    this.#owner = owner;
    this.flags = header.flags;
    this.type = header.type;
    this.cookieHigh = header.cookieHigh;
    this.cookieLow = header.cookieLow;
    this.offsetBytes = header.offsetBytes;
    this.lengthBytes = header.lengthBytes;
    this.admittedBytes = -1;
  }

  end(): void {
    this.#owner = undefined;
    this.pieces = NO_PIECES;
    this.result = undefined;
  }
}

/** Free requests of one server; keeps at most `keepMax` for reuse. How many are out is bounded
 *  per connection. */
export class RequestPool {
  readonly #free: PendingRequest[] = [];

  constructor(readonly keepMax: number) {}

  take(owner: RequestOwner, header: RequestHeader): PendingRequest {
    const request = this.#free.pop() ?? new PendingRequest();
    request.begin(owner, header);
    return request;
  }

  give(request: PendingRequest): void {
    request.end();
    if (this.#free.length < this.keepMax) this.#free.push(request);
  }
}
