import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AckHorizon } from '../../../engine/core/ack-horizon.js';
import { turns } from '../../support/engine-bed.js';

const op = (id: number) => ({ id, settled: false });

describe('ack horizon (P5: what is later may differ after a crash)', () => {
  it('never passes a change that is open, whatever is settled in which order', () => {
    const order = fc.array(fc.nat({ max: 5000 }), { minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(order, fc.boolean(), (picks, compacts) => {
        const horizon = new AckHorizon();
        const ops = Array.from({ length: compacts ? 3000 : 60 }, (_, n) => op(n + 1));
        for (const o of ops) horizon.open(o);
        // Past its first thousand the list is cut: the same answers are wanted.
        if (compacts) for (const o of ops.slice(0, 2000)) horizon.settle(o);
        for (const pick of picks) {
          const o = ops[pick % ops.length];
          if (o !== undefined && !o.settled) horizon.settle(o);
          const firstOpen = ops.find((other) => !other.settled)?.id ?? ops.length + 1;
          expect(horizon.ackedThrough).toBe(firstOpen - 1);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('who waits is woken when all that was open then is settled, not what came later', async () => {
    const horizon = new AckHorizon();
    const [a, b, later] = [op(1), op(2), op(3)];
    await horizon.whenSettled();
    horizon.open(a);
    horizon.open(b);
    let woken = false;
    const waiting = horizon.whenSettled().then(() => {
      woken = true;
    });
    horizon.open(later);
    horizon.settle(b);
    await turns(1);
    expect(woken).toBe(false);
    horizon.settle(a);
    await waiting;
    expect(horizon.ackedThrough).toBe(2);
  });

  it('a new tenure has decided all that was open; late ends of the old move nothing', async () => {
    const horizon = new AckHorizon();
    const old = op(1);
    horizon.open(old);
    const waiting = horizon.whenSettled();
    horizon.reset();
    await waiting;
    const fresh = op(2);
    horizon.open(fresh);
    horizon.settle(old);
    expect(horizon.ackedThrough).toBe(0);
    horizon.settle(fresh);
    expect(horizon.ackedThrough).toBe(2);
  });
});
