/** Reads preface and first SETTINGS of a new connection, to see who is calling. */
import type net from 'node:net';
import { FRAME, FRAME_HEADER_BYTES, PREFACE } from './frame.js';
import { hasMark } from './peer-settings.js';

/** A SETTINGS frame longer than this is not from us. */
const SETTINGS_BYTES_MAX = 600;

export type Caller = 'specialised' | 'ordinary' | 'stranger';

/** What the bytes so far tell; undefined: more are needed, at most some hundred. A stranger speaks
 * no HTTP/2 at all. */
export function callerOf(bytes: Buffer): Caller | undefined {
  const compared = Math.min(bytes.length, PREFACE.length);
  if (bytes.compare(PREFACE, 0, compared, 0, compared) !== 0) return 'stranger';
  const payloadAt = PREFACE.length + FRAME_HEADER_BYTES;
  if (bytes.length < payloadAt) return undefined;
  const length = bytes.readUIntBE(PREFACE.length, 3);
  if (bytes[PREFACE.length + 3] !== FRAME.SETTINGS) return 'stranger';
  if (length > SETTINGS_BYTES_MAX) return 'ordinary';
  if (bytes.length < payloadAt + length) return undefined;
  return hasMark(bytes.subarray(payloadAt, payloadAt + length)) ? 'specialised' : 'ordinary';
}

/** Calls back once with the caller and everything that was read; the socket is paused then. Not at
 * all if it closes first. */
export function sniff(socket: net.Socket, done: (caller: Caller, bytes: Buffer) => void): void {
  let bytes: Buffer = Buffer.alloc(0);
  const onData = (chunk: Buffer): void => {
    bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
    const caller = callerOf(bytes);
    if (caller === undefined) return;
    socket.removeListener('data', onData);
    socket.pause();
    done(caller, bytes);
  };
  socket.on('data', onData);
}
