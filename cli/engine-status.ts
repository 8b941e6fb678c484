/** Asks a standalone engine for its state over the control socket. */
import path from 'node:path';
import { StorageError } from '../common/errors.js';
import { EngineControlClient, type EngineStatus } from '../proto/control.js';

/** The part of the control client that is used here; tests pass their own. */
export interface StatusClient {
  status(): Promise<EngineStatus>;
  close(): void;
}

export type ConnectEngine = (address: string) => StatusClient;

const connectControl: ConnectEngine = (address) => new EngineControlClient({ address });

/** A relative socket path is meant from the working directory, as in every shell. */
export function absoluteAddress(address: string): string {
  const match = /^unix:(.+)$/.exec(address);
  return match?.[1] === undefined ? address : `unix:${path.resolve(match[1])}`;
}

/** @throws StorageError INVALID_ARGUMENT (no address) | NOT_FOUND (the engine serves another
 *  volume) | what the call says, such as UNAVAILABLE or DEADLINE */
export async function engineStatus(
  volume: string,
  options: { engine: string | undefined; connect?: ConnectEngine },
): Promise<EngineStatus> {
  if (options.engine === undefined) {
    throw new StorageError('INVALID_ARGUMENT', `no engine given for volume ${volume}`, {
      hint: 'add --engine unix:PATH, the control socket of the engine',
    });
  }
  const client = (options.connect ?? connectControl)(absoluteAddress(options.engine));
  try {
    const status = await client.status();
    if (status.volume === volume) return status;
    throw new StorageError(
      'NOT_FOUND',
      `the engine at ${options.engine} serves volume ${status.volume}, not ${volume}`,
    );
  } finally {
    client.close();
  }
}
