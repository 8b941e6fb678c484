/** Every bound of the NBD server in one place. Source: correctness 3.2, 3.3. */
import assert from 'node:assert';
import { KIB, MIB, REQUEST_BYTES_MAX } from '../../common/units.js';

export interface NbdLimits {
  /** Connections at once, in any state; one more is closed at once. */
  readonly connectionsMax: number;
  /** Connections that have not finished the handshake; one more pushes the oldest of them out. */
  readonly handshakesMax: number;
  /** From accept to the end of the handshake (TLS included). */
  readonly handshakeMs: number;
  /** Options per handshake. */
  readonly optionsMax: number;
  /** Data of one option. */
  readonly optionBytesMax: number;
  /** Requests of one connection that are parsed and not answered. */
  readonly inFlightMax: number;
  /** Replies of one connection, asked for or ready, that the socket has not taken: no new request
   *  is read above it. */
  readonly replyBytesMax: number;
  /** Incomplete write payloads above `smallPayloadBytes`, all connections together. */
  readonly incompletePayloadBytesMax: number;
  /** Payloads up to this are received before they are admitted. */
  readonly smallPayloadBytes: number;
  /** A peer that owes payload or does not take replies must move within this time. */
  readonly stallMs: number;
  /** The same while requests of others wait for admission. */
  readonly stallUnderPressureMs: number;
  /** How long `close` waits for requests in flight and for peers to take their replies. */
  readonly drainMs: number;
  /** How long a closed connection reads on, so that its last replies are not lost to a reset. */
  readonly lingerMs: number;
}

export const NBD_LIMITS: NbdLimits = {
  connectionsMax: 1024,
  handshakesMax: 128,
  handshakeMs: 10_000,
  optionsMax: 1024,
  optionBytesMax: 64 * KIB,
  inFlightMax: 256,
  replyBytesMax: 8 * MIB,
  incompletePayloadBytesMax: REQUEST_BYTES_MAX,
  smallPayloadBytes: 64 * KIB,
  stallMs: 30_000,
  stallUnderPressureMs: 3_000,
  drainMs: 10_000,
  lingerMs: 1_000,
};

assert(NBD_LIMITS.incompletePayloadBytesMax >= REQUEST_BYTES_MAX, 'the largest write must fit');
assert(NBD_LIMITS.optionBytesMax > 4096 + 16, 'the longest name must fit');
