/** No plaintext beyond this host unless a person says so: one rule for every way in which an engine
 *  learns the address of a replica daemon. */
import { isLoopback, parseTcpAddress } from '../common/address.js';
import { StorageError } from '../common/errors.js';
import { parseAddress } from '../proto/transport.js';
import type { EngineConfig } from './engine-config.js';

export type ExposureConfig = Pick<EngineConfig, 'tls' | 'insecure'>;

export const EXPOSURE_HINT =
  'give certificates (--tls-…, --nbd-tls-…), or --insecure on a network you trust';

/** @throws StorageError INVALID_ARGUMENT (no address) | PERMISSION (it would be reached in plain
 *    TCP beyond this host) */
export function checkReplicaAddress(address: string, config: ExposureConfig): void {
  parseAddress(address);
  if (address.startsWith('unix:') || isLoopback(parseTcpAddress(address).host)) return;
  if (config.tls !== undefined || config.insecure === true) return;
  const hint = EXPOSURE_HINT;
  throw new StorageError('PERMISSION', `replica ${address} without TLS`, { hint });
}

/** As checkReplicaAddress, for an address that nobody gave on purpose: a record names it. */
export function mayDial(address: string, config: ExposureConfig): boolean {
  try {
    checkReplicaAddress(address, config);
    return true;
  } catch {
    return false;
  }
}
