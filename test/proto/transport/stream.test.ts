import { afterEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { cleanUp, connectClient, pattern, startServer, TestMessage } from './harness.js';

afterEach(cleanUp);

const SIZES = [0, 1, 100, 4096, 16384, 16385, 65536, 300_000, 1_048_576 + 9000, 4 * 1024 * 1024];

describe('specialised endpoint on both sides', () => {
  it('carries messages of every size both ways, in order, and is done with each once', async () => {
    const server = await startServer();
    const client = await connectClient(server.listener.address);
    const sent = SIZES.map((size, index) => new TestMessage(pattern(size, index + 1)));
    for (const message of sent) client.stream.send(message);
    const { stream, recorder } = await server.stream(0);
    await recorder.until((r) => r.messages.length === SIZES.length);
    const replies = SIZES.map((size, index) => new TestMessage(pattern(size, index + 7)));
    for (const message of replies) stream.send(message);
    await client.recorder.until((r) => r.messages.length === SIZES.length);
    for (const [index, size] of SIZES.entries()) {
      expect(recorder.messages[index]?.equals(pattern(size, index + 1))).toBe(true);
      expect(client.recorder.messages[index]?.equals(pattern(size, index + 7))).toBe(true);
    }
    client.stream.close();
    expect(await recorder.closed()).toBeUndefined();
    expect(await client.recorder.closed()).toBeUndefined();
    for (const message of [...sent, ...replies]) expect(message.doneCount).toBe(1);
    expect(server.memory.usedBytes + client.memory.usedBytes).toBe(0);
  });

  it('gives the same code to the other side, whoever closes with an error', async () => {
    const server = await startServer();
    const first = await connectClient(server.listener.address);
    const details = { volume: 'v1', offsetBytes: 4096 };
    (await server.stream(0)).stream.close(
      new StorageError('STALE_EPOCH', 'epoch 3 < 5 – über % all', details),
    );
    const error = await first.recorder.closed();
    expect(error).toMatchObject({
      code: 'STALE_EPOCH',
      message: 'epoch 3 < 5 – über % all',
      details,
    });
    const second = await connectClient(server.listener.address);
    second.stream.close(new StorageError('CORRUPT_BLOCK', 'reply 7 is bad'));
    const other = await (await server.stream(1)).recorder.closed();
    expect(other).toMatchObject({ code: 'CORRUPT_BLOCK', message: 'reply 7 is bad' });
    expect(await second.recorder.closed()).toMatchObject({ code: 'CORRUPT_BLOCK' });
  });
});
