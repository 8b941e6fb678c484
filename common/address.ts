/** Network addresses as text: `HOST:PORT`, with `[v6]:PORT` for IPv6. */
import { BlockList, isIP } from 'node:net';
import { StorageError } from './errors.js';

export interface TcpAddress {
  /** name or IP address, without brackets */
  readonly host: string;
  /** 0 to 65535; 0 asks the system for a free one when listening */
  readonly port: number;
}

/** @throws StorageError INVALID_ARGUMENT; the offending text is cut and escaped in the message */
export function parseTcpAddress(text: string): TcpAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]{1,253})):([0-9]{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port <= 65535)) {
    const shown = JSON.stringify(text.slice(0, 80));
    throw new StorageError('INVALID_ARGUMENT', `address ${shown} is not HOST:PORT`, {
      hint: 'for example 127.0.0.1:9501 or [::1]:9501',
    });
  }
  return { host, port };
}

/** The inverse of parseTcpAddress. */
export function formatTcpAddress(address: TcpAddress): string {
  const host = isIP(address.host) === 6 ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8);
LOOPBACK.addAddress('::1', 'ipv6');

/** True when nobody outside this machine can reach the host name or address. */
export function isLoopback(host: string): boolean {
  const family = isIP(host);
  if (family === 0) return host === 'localhost';
  return LOOPBACK.check(host, family === 6 ? 'ipv6' : 'ipv4');
}
