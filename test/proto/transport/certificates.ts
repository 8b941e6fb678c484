/** Throw-away certificates, made with the openssl command. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TransportTls } from '../../../proto/transport.js';

export interface TestAuthority {
  readonly directory: string;
  readonly ca: string;
  /** Certificate and key for these subject alternative names, as files. */
  issue(name: string, alternativeNames: string): TransportTls;
  remove(): void;
}

function openssl(args: string[]): void {
  execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

export function makeAuthority(): TestAuthority {
  const directory = mkdtempSync(path.join(tmpdir(), 'aurochs-tls-'));
  const file = (name: string): string => path.join(directory, name);
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const ca = file('ca.pem');
  openssl([
    ...['req', '-x509', ...curve, '-keyout', file('ca.key'), '-out', ca],
    ...['-subj', '/CN=test authority', '-days', '2'],
  ]);
  return {
    directory,
    ca,
    issue: (name, alternativeNames) => {
      const [key, request, cert] = [file(`${name}.key`), file(`${name}.csr`), file(`${name}.pem`)];
      const extensions = file(`${name}.ext`);
      writeFileSync(extensions, `subjectAltName=${alternativeNames}\n`);
      openssl(['req', ...curve, '-keyout', key, '-out', request, '-subj', `/CN=${name}`]);
      openssl([
        ...['x509', '-req', '-in', request, '-CA', ca, '-CAkey', file('ca.key')],
        ...['-CAcreateserial', '-days', '2', '-extfile', extensions, '-out', cert],
      ]);
      return { ca, cert, key };
    },
    remove: () => rmSync(directory, { recursive: true, force: true }),
  };
}
