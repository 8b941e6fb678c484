import { describe, expect, it } from 'vitest';
import { Gate } from '../../common/gate.js';

const refused = expect.objectContaining({ code: 'CLOSED' });

describe('Gate', () => {
  it('closing waits for the holders and refuses new ones', async () => {
    const gate = new Gate('writes');
    gate.enter();
    gate.enter();
    let closed = false;
    const closing = gate.close().then(() => {
      closed = true;
    });
    expect(() => gate.enter()).toThrow(refused);
    gate.leave();
    await Promise.resolve();
    expect(closed).toBe(false);
    gate.leave();
    await closing;
    expect([closed, gate.holders, gate.closed]).toEqual([true, 0, true]);
  });

  it('closing twice, or with nobody inside, resolves', async () => {
    const gate = new Gate('writes');
    await gate.close();
    await expect(gate.close()).resolves.toBeUndefined();
  });

  it('wakes every waiter of close', async () => {
    const gate = new Gate('writes');
    gate.enter();
    const both = Promise.all([gate.close(), gate.close()]);
    gate.leave();
    await expect(both).resolves.toHaveLength(2);
  });

  it('run leaves also when the work fails', async () => {
    const gate = new Gate('writes');
    await expect(gate.run(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
    await expect(gate.run(async () => 7)).resolves.toBe(7);
    expect(gate.holders).toBe(0);
    await gate.close();
    await expect(gate.run(async () => 7)).rejects.toThrow(refused);
  });

  it('leaving without entering is a programmer error', () => {
    expect(() => new Gate('writes').leave()).toThrow('leave without enter');
  });
});
