/** A certificate authority, a server and two clients, made by openssl for one test. */
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Pem {
  readonly cert: Buffer;
  readonly key: Buffer;
}

export interface Certificates {
  readonly ca: Buffer;
  readonly server: Pem;
  readonly client: Pem;
  /** signed by nobody that the server knows */
  readonly stranger: Pem;
  /** named as libnbd and QEMU expect them: ca-cert.pem, client-cert.pem, client-key.pem */
  readonly directory: string;
  /** the same without a client certificate */
  readonly anonymousDirectory: string;
}

export async function makeCertificates(directory: string): Promise<Certificates> {
  await mkdir(directory, { recursive: true });
  const at = (name: string): string => join(directory, name);
  const openssl = (...args: string[]): Promise<unknown> => run('openssl', args, { cwd: directory });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const authority = (name: string): Promise<unknown> =>
    openssl(
      ...['req', '-x509', ...newKey, '-days', '2', '-subj', `/CN=${name}`],
      ...['-keyout', `${name}-key.pem`, '-out', `${name}-cert.pem`],
    );
  const issue = async (name: string, by: string, extension: string): Promise<void> => {
    await openssl(
      ...['req', '-new', ...newKey, '-subj', `/CN=${name}`],
      ...['-keyout', `${name}-key.pem`, '-out', `${name}.csr`],
    );
    await writeFile(at(`${name}.ext`), extension);
    await openssl(
      ...['x509', '-req', '-in', `${name}.csr`, '-days', '2', '-extfile', `${name}.ext`],
      ...['-CA', `${by}-cert.pem`, '-CAkey', `${by}-key.pem`, '-CAcreateserial'],
      ...['-out', `${name}-cert.pem`],
    );
  };
  await Promise.all([authority('ca'), authority('other')]);
  await issue('server', 'ca', 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  await issue('client', 'ca', 'extendedKeyUsage=clientAuth\n');
  await issue('stranger', 'other', 'extendedKeyUsage=clientAuth\n');
  const pem = async (name: string): Promise<Pem> => ({
    cert: await readFile(at(`${name}-cert.pem`)),
    key: await readFile(at(`${name}-key.pem`)),
  });
  const anonymousDirectory = at('anonymous');
  await mkdir(anonymousDirectory);
  const ca = await readFile(at('ca-cert.pem'));
  await writeFile(join(anonymousDirectory, 'ca-cert.pem'), ca);
  return {
    ca,
    server: await pem('server'),
    client: await pem('client'),
    stranger: await pem('stranger'),
    directory,
    anonymousDirectory,
  };
}
