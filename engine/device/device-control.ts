/**
 * How others speak to a device process: a unix socket, one JSON line each way.
 *
 * After the answer to `detach` the process ends and the kernel closes the connection; who waits for
 * that close knows that the process is gone.
 */
import { rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import type { Readable } from 'node:stream';
import {
  type ErrorDetails,
  isErrorCode,
  StorageError,
  toStorageError,
} from '../../common/errors.js';
import type { DevicePhase } from './device-state.js';

export type DeviceOperation = 'status' | 'resize' | 'detach';

export interface DeviceReport {
  readonly pid: number;
  readonly phase: DevicePhase;
  readonly devicePath: string;
  readonly socketPath: string;
  readonly exportName: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** the loop device bypasses the page cache */
  readonly directIo: boolean;
  /** all NBD connections are up */
  readonly connected: boolean;
  readonly connections: number;
  readonly reconnects: number;
  /** requests waiting for an answer of the engine */
  readonly unanswered: number;
}

const LINE_BYTES_MAX = 16 * 1024;
const SOCKET_PATH_BYTES_MAX = 107;

/** @throws StorageError INVALID_ARGUMENT for a path that no unix socket can have */
export async function serveControl(
  path: string,
  handle: (operation: DeviceOperation) => Promise<DeviceReport>,
): Promise<Server> {
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    throw new StorageError(
      'INVALID_ARGUMENT',
      `socket path ${path} is longer than ${SOCKET_PATH_BYTES_MAX} bytes`,
      { hint: 'use a shorter run directory' },
    );
  }
  await rm(path, { force: true });
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    readLine(socket, (line) => {
      void answer(line, handle).then((text) => socket.write(`${text}\n`));
    });
  });
  server.maxConnections = 16;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return server;
}

/** Asks a device process. Resolves when it answered; for `detach`, when it is gone.
 *  @throws StorageError UNAVAILABLE (details.answered is false: no such process, or it
 *          ended) | DEADLINE | what the process answered */
export function askDevice(
  path: string,
  operation: DeviceOperation,
  timeoutMs: number,
): Promise<DeviceReport> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, timeout: timeoutMs });
    let report: DeviceReport | undefined;
    const fail = (error: StorageError): void => {
      reject(error);
      socket.destroy();
    };
    socket.on('timeout', () => {
      fail(new StorageError('DEADLINE', `device process: no answer within ${timeoutMs} ms`));
    });
    socket.on('error', (cause) => {
      const text = `device process: ${cause.message}`;
      fail(new StorageError('UNAVAILABLE', text, { answered: false }, { cause }));
    });
    socket.on('close', () => {
      if (report !== undefined) resolve(report);
      else fail(new StorageError('UNAVAILABLE', 'device process: ended', { answered: false }));
    });
    readLine(socket, (line) => {
      try {
        report = parseAnswer(line);
        if (operation !== 'detach') socket.destroy();
      } catch (error) {
        fail(toStorageError(error, 'device process'));
      }
    });
    socket.write(`${operation}\n`);
  });
}

async function answer(
  line: string,
  handle: (operation: DeviceOperation) => Promise<DeviceReport>,
): Promise<string> {
  try {
    if (line !== 'status' && line !== 'resize' && line !== 'detach') {
      throw new StorageError('INVALID_ARGUMENT', 'unknown operation');
    }
    return JSON.stringify({ report: await handle(line) });
  } catch (cause) {
    return encodeError(toStorageError(cause, line));
  }
}

/** One line that `parseAnswer` turns into the same error again. */
export function encodeError(error: StorageError): string {
  const { code, message, details } = error;
  return JSON.stringify({ error: { code, message, details } });
}

/** @throws StorageError the error that the line carries, or PROTOCOL_ERROR */
export function parseAnswer(line: string): DeviceReport {
  const parsed: unknown = parseJson(line);
  const { report, error } = parsed as { report?: DeviceReport; error?: Record<string, unknown> };
  if (report !== undefined && typeof report.devicePath === 'string') return report;
  const code = String(error?.['code']);
  if (isErrorCode(code)) {
    const details = (error?.['details'] ?? {}) as ErrorDetails;
    throw new StorageError(code, String(error?.['message']), details);
  }
  throw new StorageError('PROTOCOL_ERROR', 'the device process answers something unknown');
}

function parseJson(line: string): unknown {
  try {
    const parsed: unknown = JSON.parse(line);
    return typeof parsed === 'object' && parsed !== null ? parsed : {};
  } catch {
    return {};
  }
}

/** Calls back with the first line; a peer that sends more without an end of line is cut off. */
export function readLine(stream: Readable, onLine: (line: string) => void): void {
  let text = '';
  let done = false;
  stream.on('data', (chunk: Buffer) => {
    if (done) return;
    text += chunk.toString('utf8');
    const end = text.indexOf('\n');
    if (end >= 0) {
      done = true;
      onLine(text.slice(0, end));
    } else if (text.length > LINE_BYTES_MAX) {
      stream.destroy();
    }
  });
}
