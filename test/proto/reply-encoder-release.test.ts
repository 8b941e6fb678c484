import { expect, it } from 'vitest';
import { COPIED_PAYLOAD_MAX, IoReplyEncoder } from '../../proto/io-codec.js';

it('a message that carries nothing by reference never releases the payload of a later one', () => {
  const encoder = new IoReplyEncoder();
  encoder.add(1, 0);
  const first = encoder.finish();
  let released = 0;
  const payload = Buffer.alloc(2 * COPIED_PAYLOAD_MAX);
  encoder.addRead(2, Buffer.alloc(0), payload, () => {
    released += 1;
  });
  const second = encoder.finish();
  first.done();
  expect(released).toBe(0);
  second.done();
  expect(released).toBe(1);
});
