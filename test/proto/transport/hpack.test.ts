import assert from 'node:assert';
import http2 from 'node:http2';
import net, { type AddressInfo } from 'node:net';
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { decodeHeaders, encodeHeaders } from '../../../proto/transport/hpack.js';
import { decodeHuffman } from '../../../proto/transport/huffman.js';

/** Header block that nghttp2 (inside Node) makes of these headers: taken from the wire. */
async function blockByNghttp2(headers: http2.OutgoingHttpHeaders): Promise<Buffer> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const port = (server.address() as AddressInfo).port;
  const client = http2.connect(`http://127.0.0.1:${port}`);
  client.on('error', () => undefined);
  try {
    return await new Promise<Buffer>((resolve) => {
      let bytes = Buffer.alloc(0);
      server.on('connection', (socket) => {
        socket.on('error', () => undefined);
        // Table size 0, as our endpoint announces.
        socket.write(Buffer.from('000006040000000000000100000000', 'hex'));
        socket.on('data', (chunk) => {
          bytes = Buffer.concat([bytes, chunk]);
          let at = 24;
          while (bytes.length >= at + 9) {
            const length = bytes.readUIntBE(at, 3);
            if (bytes.length < at + 9 + length) return;
            if (bytes[at + 3] === 1) resolve(bytes.subarray(at + 9, at + 9 + length));
            at += 9 + length;
          }
        });
      });
      client.once('remoteSettings', () => client.request(headers).on('error', () => undefined));
    });
  } finally {
    client.destroy();
    server.close();
  }
}

describe('HPACK', () => {
  it('reads what nghttp2 writes, Huffman included, for every byte a header may hold', async () => {
    let every = '';
    for (let byte = 0x21; byte < 0x7f; byte++) every += String.fromCharCode(byte);
    for (let byte = 0x80; byte < 0x100; byte++) every += String.fromCharCode(byte);
    const block = await blockByNghttp2({
      ':path': '/aurochs.v1.ReplicaData/Io',
      ':method': 'POST',
      'x-plain': 'the quick brown fox, 0123456789 times',
      'x-all': every,
      'x-each': 'aA0 zZ9 ~}|{',
      'content-type': 'application/grpc',
    });
    const headers = new Map(decodeHeaders(block));
    expect(headers.get(':path')).toBe('/aurochs.v1.ReplicaData/Io');
    expect(headers.get('x-plain')).toBe('the quick brown fox, 0123456789 times');
    expect(headers.get('x-all')).toBe(every);
    expect(headers.get('x-each')).toBe('aA0 zZ9 ~}|{');
    expect(headers.get('content-type')).toBe('application/grpc');
    // nghttp2 chose Huffman somewhere, or this test shows nothing.
    expect(block.includes(Buffer.from('quick brown fox'))).toBe(false);
  });

  it('reads the example of RFC 7541, C.4.1', () => {
    const text = decodeHuffman(Buffer.from('f1e3c2e5f23a6ba0ab90f4ff', 'hex'));
    expect(text).toBe('www.example.com');
  });

  it('writes what it reads', () => {
    const headers: Array<[string, string]> = [
      [':status', '200'],
      ['grpc-message', 'x'.repeat(126)],
      ['a', 'y'.repeat(127)],
      ['b', 'z'.repeat(5000)],
      ['empty', ''],
    ];
    expect(decodeHeaders(encodeHeaders(headers))).toEqual(headers);
  });

  const bad: Array<[string, string]> = [
    ['index 0', '80'],
    ['index of a dynamic entry', 'be'],
    ['integer without end', 'ffffffffffffffff'],
    ['text longer than the block', '00057465'],
    ['table size other than 0', '3fe11f'],
    ['table size after a header', '8220'],
    ['Huffman padding with zeroes', '00' + '81' + '00' + '00'],
    ['Huffman end mark', '0084ffffffff00'],
    ['block that is cut', '00'],
  ];
  it.each(bad)('refuses: %s', (_name, hex) => {
    try {
      decodeHeaders(Buffer.from(hex, 'hex'));
    } catch (error) {
      assert(error instanceof StorageError);
      expect(error.code).toBe('CORRUPT_MESSAGE');
      return;
    }
    expect.unreachable();
  });

  it('refuses a header list past 16 KiB', () => {
    const block = encodeHeaders([['a', 'x'.repeat(17000)]]);
    expect(() => decodeHeaders(block)).toThrow(/headers pass/);
  });
});
