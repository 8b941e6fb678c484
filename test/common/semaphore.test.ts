import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../common/errors.js';
import { Semaphore } from '../../common/semaphore.js';

describe('Semaphore', () => {
  it('serves first come first served: a small one does not overtake a large one', async () => {
    const semaphore = new Semaphore('bytes', 10, 8);
    await semaphore.acquire(8);
    const order: string[] = [];
    const large = semaphore.acquire(6).then(() => order.push('large'));
    const small = semaphore.acquire(1).then(() => order.push('small'));
    expect(semaphore.tryAcquire(1)).toBe(false);
    semaphore.release(8);
    await Promise.all([large, small]);
    expect(order).toEqual(['large', 'small']);
    expect([semaphore.used, semaphore.waiting]).toEqual([7, 0]);
  });

  it('refuses one waiter too many with OVERLOADED', async () => {
    const semaphore = new Semaphore('bytes', 1, 1);
    await semaphore.acquire(1);
    const waiting = semaphore.acquire(1);
    await expect(semaphore.acquire(1)).rejects.toMatchObject({ code: 'OVERLOADED' });
    semaphore.release(1);
    await expect(waiting).resolves.toBeUndefined();
  });

  it('broken: waiters and later callers get the error, held units come back', async () => {
    const semaphore = new Semaphore('bytes', 2, 4);
    await semaphore.acquire(2);
    const waiting = semaphore.acquire(1);
    const error = new StorageError('CLOSED', 'stopping');
    semaphore.break(error);
    await expect(waiting).rejects.toBe(error);
    await expect(semaphore.acquire(1)).rejects.toBe(error);
    expect(semaphore.tryAcquire(1)).toBe(false);
    semaphore.release(2);
    expect(semaphore.used).toBe(0);
  });

  it('more than the capacity, or released twice, is a programmer error', () => {
    const semaphore = new Semaphore('bytes', 2, 4);
    expect(() => semaphore.tryAcquire(3)).toThrow('3 of 2');
    expect(() => semaphore.release(1)).toThrow('released more');
  });

  it('never hands out more than it has, and nobody is forgotten', async () => {
    const units = fc.integer({ min: 0, max: 5 });
    await fc.assert(
      fc.asyncProperty(fc.array(units, { maxLength: 40 }), async (requests) => {
        const semaphore = new Semaphore('bytes', 5, 100);
        let held = 0;
        const work = requests.map(async (count) => {
          await semaphore.acquire(count);
          held += count;
          expect(held).toBeLessThanOrEqual(5);
          await Promise.resolve();
          held -= count;
          semaphore.release(count);
        });
        await Promise.all(work);
        expect(semaphore.used).toBe(0);
      }),
    );
  });
});
