/** STARTTLS: forced, checked, and not to be talked around (correctness 3.1). */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, connect } from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SystemClock } from '../../../common/clock.js';
import { COMMAND as C, OPTION, OPTION_REPLY as REP } from '../../../engine/nbd/constants.js';
import { NbdServer } from '../../../engine/nbd/server.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { type Certificates, makeCertificates } from './certificates.js';
import { encodeInfo, encodeOption, RawClient } from './raw-client.js';
import { memoryLog } from './test-server.js';

const run = promisify(execFile);
const SIZE = 8 << 20;

describe('TLS', () => {
  let directory: string;
  let certificates: Certificates;
  /** requires a client certificate */
  let strict: NbdServer;
  /** does not */
  let open: NbdServer;
  const volume = new MemoryVolume({ sizeBytes: SIZE });
  const portOf = (server: NbdServer): number => Number(new URL(server.uri).port);

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'aurochs-nbd-tls-'));
    certificates = await makeCertificates(join(directory, 'pki'));
    const listen = (requireClientCert: boolean): Promise<NbdServer> =>
      NbdServer.listen({
        exports: [{ name: 'v1', volume }],
        address: { host: '127.0.0.1', port: 0 },
        tls: { ca: certificates.ca, ...certificates.server, requireClientCert },
        log: memoryLog([]),
        clock: new SystemClock(),
      });
    strict = await listen(true);
    open = await listen(false);
  });
  afterAll(async () => {
    await strict.close({ drain: false });
    await open.close({ drain: false });
    volume.assertBalanced();
    await rm(directory, { recursive: true, force: true });
  });

  const plain = async (server: NbdServer): Promise<RawClient> => {
    const client = await RawClient.open({ host: '127.0.0.1', port: portOf(server) });
    await client.greet();
    return client;
  };

  /** The client after STARTTLS; rejects if TLS or the certificate is refused. */
  const secured = async (
    server: NbdServer,
    options: Pick<ConnectionOptions, 'cert' | 'key' | 'maxVersion'> = {},
  ): Promise<RawClient> => {
    const client = await plain(server);
    await client.option(OPTION.STARTTLS);
    client.socket.removeAllListeners('data');
    const socket = connect({
      socket: client.socket,
      ca: certificates.ca,
      servername: 'localhost',
      ...options,
    });
    await new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve);
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('closed')));
    });
    return new RawClient(socket);
  };

  /** After TLS the flags are agreed already: options follow. */
  const readSome = async (client: RawClient): Promise<void> => {
    const replies = await client.option(OPTION.GO, encodeInfo('v1'));
    expect(replies.at(-1)?.type).toBe(REP.ACK);
    const payload = Buffer.alloc(300_000, 0x77);
    const write = { type: C.WRITE, offset: 5, length: payload.length };
    expect(await client.call(write, payload)).toMatchObject({ error: 0 });
    const read = await client.call({ type: C.READ, offset: 5, length: payload.length });
    expect(read.data.equals(payload)).toBe(true);
    client.destroy();
  };

  it('serves a client that starts TLS, without and with a certificate', async () => {
    await readSome(await secured(open));
    await readSome(await secured(strict, certificates.client));
    await readSome(await secured(strict, { ...certificates.client, maxVersion: 'TLSv1.2' }));
  });

  it('answers nothing but TLS_REQD before TLS, whatever the name', async () => {
    const client = await plain(strict);
    for (const name of ['v1', 'no-such-export', '']) {
      for (const option of [OPTION.INFO, OPTION.GO, OPTION.LIST, OPTION.SET_META_CONTEXT, 99]) {
        const replies = await client.option(option, encodeInfo(name));
        expect(replies).toMatchObject([{ type: REP.ERR_TLS_REQD, data: Buffer.alloc(0) }]);
      }
    }
    client.send(encodeOption(OPTION.EXPORT_NAME, Buffer.from('v1')));
    expect(await client.closed()).toHaveLength(0);
  });

  it('drops plain bytes that follow STARTTLS (command injection)', async () => {
    const client = await plain(open);
    client.send(encodeOption(OPTION.STARTTLS), encodeOption(OPTION.LIST));
    expect(await client.closed()).toHaveLength(0);
  });

  it('drops a client that answers STARTTLS with something else', async () => {
    const client = await plain(open);
    await client.option(OPTION.STARTTLS);
    client.send(encodeOption(OPTION.LIST), Buffer.alloc(64, 1));
    const rest = await client.closed();
    expect(rest.includes('v1')).toBe(false);
  });

  it('refuses a client without a certificate, and one of a stranger', async () => {
    const served = async (options: Parameters<typeof secured>[1]): Promise<boolean> => {
      try {
        const client = await secured(strict, options);
        await client.option(OPTION.GO, encodeInfo('v1'));
        client.destroy();
        return true;
      } catch {
        return false;
      }
    };
    expect(await served({})).toBe(false);
    expect(await served(certificates.stranger)).toBe(false);
    expect(await served(certificates.client)).toBe(true);
  });

  it('does not start TLS twice', async () => {
    const client = await secured(open);
    expect(await client.option(OPTION.STARTTLS)).toMatchObject([{ type: REP.ERR_INVALID }]);
    client.destroy();
  });

  it('many at once keep apart', async () => {
    const clients = await Promise.all(
      Array.from({ length: 20 }, () => secured(strict, certificates.client)),
    );
    for (const client of clients) {
      await client.option(OPTION.GO, encodeInfo('v1'));
      expect(await client.call({ type: C.READ, length: 512 })).toMatchObject({ error: 0 });
    }
    for (const client of clients) client.destroy();
  });

  it('nbdinfo with and without a client certificate', async () => {
    const uri = (server: NbdServer, pki: string): string =>
      `nbds://localhost:${portOf(server)}/v1?tls-certificates=${pki}`;
    const { stdout } = await run('nbdinfo', ['--json', uri(strict, certificates.directory)]);
    expect(JSON.parse(stdout)).toMatchObject({ TLS: true });
    await run('nbdinfo', [uri(open, certificates.anonymousDirectory)]);
    await expect(run('nbdinfo', [uri(strict, certificates.anonymousDirectory)])).rejects.toThrow();
    await expect(run('nbdinfo', [uri(strict, '').replace('nbds:', 'nbd:')])).rejects.toThrow();
  });

  it('qemu-img over TLS', async () => {
    const image = (server: NbdServer): string[] => [
      ...['--object', `tls-creds-x509,id=t,dir=${certificates.directory},endpoint=client`],
      '--image-opts',
      `driver=nbd,host=localhost,port=${portOf(server)},export=v1,tls-creds=t`,
    ];
    const { stdout } = await run('qemu-img', ['info', ...image(strict)]);
    expect(stdout).toContain('8 MiB');
  });

  it('refuses files that are no certificate, and TLS on a unix socket', async () => {
    const listen = (
      address: { path: string } | { host: string; port: number },
      cert: Buffer,
    ): Promise<NbdServer> =>
      NbdServer.listen({
        exports: [{ name: 'v1', volume }],
        address,
        tls: { cert, key: certificates.server.key, requireClientCert: false },
        log: memoryLog([]),
        clock: new SystemClock(),
      });
    const tcp = { host: '127.0.0.1', port: 0 };
    await expect(listen(tcp, Buffer.from('x'))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    const unix = { path: join(directory, 's') };
    await expect(listen(unix, certificates.server.cert)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });
});
