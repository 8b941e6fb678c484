/** The proxy passes everything on unless it was told to spoil it, and then exactly that. */
import { connect, createServer, type Server, type Socket } from 'node:net';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../engine/nbd/seeded-random.js';
import { Lab } from './lab.js';
import { TcpProxy } from './tcp-proxy.js';

describe('a proxy that spoils', () => {
  let lab: Lab;
  let echo: Server;
  let proxy: TcpProxy;
  const received: Buffer[] = [];

  beforeEach(async () => {
    lab = await Lab.open();
    received.length = 0;
    echo = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (bytes) => received.push(bytes));
      socket.pipe(socket);
    });
    const socketPath = path.join(lab.dir, 'echo.sock');
    await new Promise<void>((resolve) => echo.listen(socketPath, resolve));
    proxy = await TcpProxy.listen(`unix:${socketPath}`);
  });
  afterEach(async () => {
    await proxy.close();
    echo.close();
    await lab.close();
  });

  const dial = (): Socket => connect(Number(proxy.address.split(':')[1]), '127.0.0.1');

  /** Sends and resolves with what came back when all has, or the connection has ended. */
  function talk(sent: Buffer): Promise<{ got: Buffer; error: string | undefined }> {
    return new Promise((resolve) => {
      const socket = dial();
      const parts: Buffer[] = [];
      let error: string | undefined;
      socket.on('data', (bytes) => {
        parts.push(bytes);
        if (Buffer.concat(parts).length === sent.length) socket.end();
      });
      socket.on('error', (cause: NodeJS.ErrnoException) => {
        error = cause.code;
      });
      socket.on('close', () => resolve({ got: Buffer.concat(parts), error }));
      socket.write(sent);
    });
  }

  const sent = new SeededRandom(1).bytes(300_000);

  it('passes everything on, byte for byte', async () => {
    expect((await talk(sent)).got.equals(sent)).toBe(true);
    expect(proxy.connections).toBe(0);
  });

  it('delays and limits', async () => {
    proxy.shape({ delayMs: 50 });
    let startedMs = performance.now();
    expect((await talk(sent)).got.equals(sent)).toBe(true);
    expect(performance.now() - startedMs).toBeGreaterThan(99);
    proxy.shape({ bytesPerSecond: 1_000_000 });
    startedMs = performance.now();
    expect((await talk(sent)).got.equals(sent)).toBe(true);
    expect(performance.now() - startedMs).toBeGreaterThan(295);
  });

  it('holds a direction back, and delivers it when let go', async () => {
    proxy.hold('down', true);
    const answer = talk(sent);
    while (Buffer.concat(received).length < sent.length) await new Promise(setImmediate);
    proxy.hold('down', false);
    expect((await answer).got.equals(sent)).toBe(true);
  });

  it('changes one bit, once', async () => {
    proxy.spoil('up', 'flip', 123_456);
    const { got } = await talk(sent);
    const differing = [...got].flatMap((byte, at) => (byte === sent[at] ? [] : [at]));
    expect(differing).toEqual([123_456]);
    expect(proxy.spoiled('up')).toBe(true);
    expect((await talk(sent)).got.equals(sent)).toBe(true);
  });

  it.each([
    { act: 'rst' as const, error: 'ECONNRESET' },
    { act: 'fin' as const, error: undefined },
  ])('ends a connection inside a message by $act', async ({ act, error }) => {
    proxy.spoil('down', act, 100_000);
    const result = await talk(sent);
    expect(result.error).toBe(error);
    expect(result.got.length).toBeLessThanOrEqual(100_000);
    if (act === 'fin') expect(result.got.length).toBe(100_000);
  });

  it('records what passed', async () => {
    proxy.recorded = [];
    await talk(sent);
    const [record] = proxy.recorded;
    expect(Buffer.concat(record?.up ?? []).equals(sent)).toBe(true);
    expect(Buffer.concat(record?.down ?? []).equals(sent)).toBe(true);
  });

  it('refuses', async () => {
    proxy.refuses = true;
    expect((await talk(sent)).got.length).toBe(0);
  });
});
