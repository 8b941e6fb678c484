import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  credentials,
  Metadata,
  ServerCredentials,
  type ServerDuplexStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import type { TransportTls } from '../../../proto/transport.js';
import { makeAuthority, type TestAuthority } from './certificates.js';
import { cleanUp, connectClient, pattern, startServer, TestMessage } from './harness.js';
import { stockClient, stockServer } from './stock.js';

const SIZES = [0, 5, 4096, 20_000, 70_000, 1_050_000, 4 * 1024 * 1024];

let authority: TestAuthority;
let serverTls: TransportTls;
let clientTls: TransportTls;
let directory: string;

beforeAll(() => {
  authority = makeAuthority();
  serverTls = authority.issue('server', 'DNS:localhost,IP:127.0.0.1,DNS:replica.node1');
  clientTls = authority.issue('client', 'DNS:engine.v1');
  directory = mkdtempSync(path.join(tmpdir(), 'aurochs-interop-'));
});
afterAll(() => {
  authority.remove();
  rmSync(directory, { recursive: true, force: true });
});
afterEach(cleanUp);

let sockets = 0;

/** The three ways to connect; a new address each time. */
const WAYS = ['tcp', 'unix', 'tls'] as const;
type Way = (typeof WAYS)[number];

function addressFor(way: Way): string {
  sockets += 1;
  return way === 'unix' ? `unix:${directory}/s${sockets}` : '127.0.0.1:0';
}

function stockChannel(way: Way) {
  if (way !== 'tls') return credentials.createInsecure();
  return credentials.createSsl(
    readFileSync(clientTls.ca),
    readFileSync(clientTls.key),
    readFileSync(clientTls.cert),
  );
}

function stockServerSecurity(way: Way) {
  if (way !== 'tls') return ServerCredentials.createInsecure();
  const pair = {
    private_key: readFileSync(serverTls.key),
    cert_chain: readFileSync(serverTls.cert),
  };
  return ServerCredentials.createSsl(readFileSync(serverTls.ca), [pair], true);
}

describe.each(WAYS)('over %s', (way) => {
  const secure = way === 'tls';

  it('our client and our listener understand each other', async () => {
    const tls = secure ? { tls: serverTls } : {};
    const server = await startServer({ address: addressFor(way), ...tls });
    const client = await connectClient(server.listener.address, secure ? { tls: clientTls } : {});
    for (const size of SIZES) client.stream.send(new TestMessage(pattern(size, size + 1)));
    const { stream, recorder } = await server.stream(0);
    await recorder.until((r) => r.messages.length === SIZES.length);
    for (const size of SIZES) stream.send(new TestMessage(pattern(size, size + 2)));
    await client.recorder.until((r) => r.messages.length === SIZES.length);
    for (const [index, size] of SIZES.entries()) {
      expect(recorder.messages[index]?.equals(pattern(size, size + 1))).toBe(true);
      expect(client.recorder.messages[index]?.equals(pattern(size, size + 2))).toBe(true);
    }
    client.stream.close();
    expect(await recorder.closed()).toBeUndefined();
    expect(await client.recorder.closed()).toBeUndefined();
  });

  it('our client works with a stock grpc-js server', async () => {
    const received: Buffer[] = [];
    const address = await stockServer(
      (call) => {
        call.on('data', (bytes: Buffer) => {
          received.push(bytes);
          call.write(bytes);
        });
        call.on('end', () => call.end());
      },
      { address: addressFor(way), security: stockServerSecurity(way) },
    );
    const client = await connectClient(address, secure ? { tls: clientTls } : {});
    const messages = SIZES.map((size) => new TestMessage(pattern(size, size + 3)));
    for (const message of messages) client.stream.send(message);
    await client.recorder.until((r) => r.messages.length === SIZES.length);
    client.stream.close();
    expect(await client.recorder.closed()).toBeUndefined();
    for (const [index, size] of SIZES.entries()) {
      expect(received[index]?.equals(pattern(size, size + 3))).toBe(true);
      expect(client.recorder.messages[index]?.equals(pattern(size, size + 3))).toBe(true);
      expect(messages[index]?.doneCount).toBe(1);
    }
  });

  it('a stock grpc-js client works with our listener', async () => {
    const tls = secure ? { tls: serverTls } : {};
    const server = await startServer({ address: addressFor(way), ...tls });
    const call = stockClient(server.listener.address, stockChannel(way));
    const answers: Buffer[] = [];
    const ended = new Promise<void>((resolve) => call.on('end', resolve));
    call.on('data', (bytes: Buffer) => answers.push(bytes));
    call.on('error', () => undefined);
    for (const size of SIZES) call.write(pattern(size, size + 4));
    const { stream, recorder } = await server.stream(0);
    await recorder.until((r) => r.messages.length === SIZES.length);
    const replies = SIZES.map((size) => new TestMessage(pattern(size, size + 5)));
    for (const message of replies) stream.send(message);
    call.end();
    expect(await recorder.closed()).toBeUndefined();
    await ended;
    for (const [index, size] of SIZES.entries()) {
      expect(recorder.messages[index]?.equals(pattern(size, size + 4))).toBe(true);
      expect(answers[index]?.equals(pattern(size, size + 5))).toBe(true);
      expect(replies[index]?.doneCount).toBe(1);
    }
  });
});

describe('errors between ours and stock', () => {
  it('our listener tells a stock client status, message and code', async () => {
    const server = await startServer();
    const call = stockClient(server.listener.address);
    const failed = new Promise<ServiceError>((resolve) => call.on('error', resolve));
    call.on('data', () => undefined);
    call.write(Buffer.from('x'));
    const { stream, recorder } = await server.stream(0);
    stream.close(new StorageError('STALE_EPOCH', 'epoch 3 is fenced', { volume: 'v1' }));
    const error = await failed;
    expect(error.code).toBe(9);
    expect(error.details).toBe('epoch 3 is fenced');
    expect(error.metadata.get('aurochs-code')).toEqual(['STALE_EPOCH']);
    expect(await recorder.closed()).toMatchObject({ code: 'STALE_EPOCH' });
  });

  const statuses: Array<[number, string]> = [
    [5, 'NOT_FOUND'],
    [8, 'OVERLOADED'],
    [12, 'UNSUPPORTED'],
    [16, 'PERMISSION'],
  ];
  it.each(statuses)('a stock server ending with status %i is %s here', async (code, want) => {
    const address = await stockServer((call: ServerDuplexStream<Buffer, Buffer>) => {
      call.emit('error', { code, details: 'no – sorry', metadata: new Metadata() });
    });
    const client = await connectClient(address);
    expect(await client.recorder.closed()).toMatchObject({ code: want, message: 'no – sorry' });
  });

  it('a cancelled call ends the stream of a stock client with ABORTED', async () => {
    const server = await startServer();
    const call = stockClient(server.listener.address);
    call.on('error', () => undefined);
    call.write(Buffer.from('x'));
    const { recorder } = await server.stream(0);
    await recorder.until((r) => r.messages.length === 1);
    call.cancel();
    expect(await recorder.closed()).toMatchObject({ code: 'ABORTED' });
  });

  it('our error reaches a stock server as a cancelled call', async () => {
    const cancelled = new Promise<void>((resolve) => {
      void stockServer((call) => {
        call.on('data', () => undefined);
        call.on('cancelled', () => resolve());
      }).then(async (address) => {
        const client = await connectClient(address);
        client.stream.send(new TestMessage(Buffer.from('x')));
        client.stream.close(new StorageError('ABORTED', 'enough'));
      });
    });
    await cancelled;
  });

  it('a stock server that does not read holds us back, and loses nothing', async () => {
    let seen = 0;
    let resume = (): void => undefined;
    const opened = new Promise<void>((resolve) => {
      resume = resolve;
    });
    const address = await stockServer((call) => {
      void opened.then(() => {
        call.on('data', (bytes: Buffer) => {
          seen += bytes.length;
          if (seen === 24 * 1024 * 1024) call.end();
        });
      });
    });
    const client = await connectClient(address);
    const messages = Array.from({ length: 24 }, () => new TestMessage(pattern(1024 * 1024)));
    const accepted = messages.map((message) => client.stream.send(message));
    expect(accepted.includes(false)).toBe(true);
    expect(client.stream.queuedBytes).toBeGreaterThan(20 * 1024 * 1024);
    resume();
    expect(await client.recorder.closed()).toBeUndefined();
    expect(client.recorder.drains).toBe(1);
    for (const message of messages) expect(message.doneCount).toBe(1);
  });
});

describe('TLS', () => {
  it('refuses a client without certificate', async () => {
    const server = await startServer({ tls: serverTls });
    const other = makeAuthority();
    const foreign = other.issue('client', 'DNS:engine.v1');
    const tls = { ...foreign, ca: clientTls.ca };
    await expect(connectClient(server.listener.address, { tls })).rejects.toMatchObject({
      name: 'StorageError',
    });
    await expect(connectClient(server.listener.address)).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
    expect(server.streams).toHaveLength(0);
    other.remove();
  });

  it('refuses a server of another authority, or with another name', async () => {
    const other = makeAuthority();
    const foreign = other.issue('server', 'IP:127.0.0.1');
    const impostor = await startServer({ tls: foreign });
    await expect(
      connectClient(impostor.listener.address, { tls: clientTls }),
    ).rejects.toMatchObject({ code: 'PERMISSION' });
    other.remove();
    const server = await startServer({ tls: serverTls });
    const wrong = { ...clientTls, peerName: 'replica.node2' };
    await expect(connectClient(server.listener.address, { tls: wrong })).rejects.toMatchObject({
      code: 'PERMISSION',
    });
    const right = { ...clientTls, peerName: 'replica.node1' };
    const client = await connectClient(server.listener.address, { tls: right });
    expect(client.stream.queuedBytes).toBe(0);
  });

  it('a listener that expects a name refuses other names of the authority', async () => {
    const tls = { ...serverTls, peerName: 'engine.v2' };
    const server = await startServer({ tls });
    await expect(connectClient(server.listener.address, { tls: clientTls })).rejects.toMatchObject({
      name: 'StorageError',
    });
    expect(server.streams).toHaveLength(0);
  });

  it("names the file that cannot be read, and a key that is not the certificate's", async () => {
    const missing = { ...serverTls, key: '/nonexistent/key.pem' };
    await expect(startServer({ tls: missing })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('/nonexistent/key.pem'),
    });
    const mixed = { ...serverTls, key: clientTls.key };
    await expect(startServer({ tls: mixed })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});
