import fc from 'fast-check';
import { expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../common/units.js';
import { CatchUpBed as Bed } from '../../support/catch-up-bed.js';
import { fill, SIZE, turns } from '../../support/engine-bed.js';

const BLOCKS = SIZE / BLOCK_SIZE;
const C = 2;

interface Change {
  readonly kind: 'write' | 'write' | 'trim' | 'clean';
  readonly block: number;
  readonly count: number;
  /** event-loop turns until the next one */
  readonly pause: number;
}

const change = fc.record({
  kind: fc.constantFrom('write' as const, 'write' as const, 'trim' as const, 'clean' as const),
  // Half of them in the first blocks of each extent, so that they meet.
  block: fc.oneof(
    fc.nat({ max: BLOCKS - 1 }),
    fc.nat({ max: 15 }).map((n) => (n % 4) * 256 + (n >> 2)),
  ),
  count: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constant(300)),
  pause: fc.nat({ max: 6 }),
});

const changes = (maxLength: number) => fc.array(change, { maxLength });

/** Clients of a volume, and what they may expect to read. */
class Clients {
  readonly model = Buffer.alloc(SIZE);
  readonly #running: Promise<unknown>[] = [];
  #value = 0;

  constructor(readonly bed: Bed) {}

  /** Begins one operation and waits a little, not for its end. */
  async step({ kind, block, count, pause }: Change): Promise<void> {
    const offset = block * BLOCK_SIZE;
    const length = Math.min(count * BLOCK_SIZE, SIZE - offset);
    if (kind === 'clean') this.#running.push(this.bed.cleaner.clean(0).catch(() => 0));
    else if (kind === 'trim') {
      this.model.fill(0, offset, offset + length);
      this.#running.push(this.bed.volume.trim(offset, length, { fua: false }));
    } else {
      this.#value = (this.#value % 250) + 1;
      this.model.fill(this.#value, offset, offset + length);
      this.#running.push(this.bed.write(offset, fill(length, this.#value)));
    }
    await turns(pause);
  }

  async run(steps: readonly Change[]): Promise<void> {
    for (const step of steps) await this.step(step);
  }

  /** Every operation has succeeded. */
  async ended(): Promise<void> {
    await Promise.all(this.#running.splice(0));
  }
}

interface Fault {
  /** when it strikes, in turns from the start of the catch-up */
  readonly at: number;
  readonly who: 'source' | 'target';
}

const fault = fc.record({
  at: fc.nat({ max: 40 }),
  who: fc.constantFrom('source' as const, 'target' as const),
});

/** Brings `c` back, as often as it takes. */
async function bringBack(bed: Bed, forgets: boolean, faults: readonly Fault[]): Promise<void> {
  const strikes = faults.map(async ({ at, who }) => {
    await turns(at);
    bed.at(who === 'source' ? 0 : C).cut();
  });
  for (let attempt = 0; ; attempt += 1) {
    await turns(1);
    if (bed.set.roleOf('c') !== 'out') continue;
    try {
      const link = await bed.catchUp(C, { forgets: forgets && attempt === 0 });
      if (link.broken !== undefined) throw link.broken;
      await bed.keeper.promote('c');
      break;
    } catch (error) {
      expect(attempt).toBeLessThan(8);
      expect(String(error)).toMatch(/StorageError/);
    }
  }
  await Promise.all(strikes);
}

it('R6, P6, scenarios 64, 65: whatever is written or fails, copies are equal', async () => {
  const history = fc.record({
    before: changes(6),
    inFlight: changes(2),
    arrives: fc.boolean(),
    away: changes(8),
    slow: changes(3),
    slowTurns: fc.nat({ max: 30 }),
    during: changes(14),
    forgets: fc.boolean(),
    faults: fc.array(fault, { maxLength: 2 }),
  });
  await fc.assert(
    fc.asyncProperty(history, async (h) => {
      const bed = new Bed(3);
      const clients = new Clients(bed);
      await clients.run(h.before);
      await clients.ended();
      // What is under way when the member leaves has happened there, or not, and is not answered.
      bed.at(C).hold(true);
      bed.at(C).deaf = !h.arrives;
      await clients.run(h.inFlight);
      await turns(2);
      bed.at(C).cut();
      bed.at(C).hold(false);
      bed.at(C).deaf = false;
      await clients.run(h.away);
      // What is under way when it comes back has not arrived at one of the others yet.
      bed.at(0).stall(true);
      await clients.run(h.slow);
      const back = bringBack(bed, h.forgets, h.faults);
      await turns(h.slowTurns);
      bed.at(0).stall(false);
      await clients.run(h.during);
      await back;
      await clients.ended();
      await bed.keeper.changed();
      await turns(3);
      const inSync = bed.set.healthy();
      for (const replica of bed.replicas.filter((r) => inSync.includes(r.replicaId))) {
        expect(replica.bytes.equals(clients.model), `copy ${replica.replicaId}`).toBe(true);
      }
      expect(bed.lock.size).toBe(0);
    }),
    { numRuns: 60 },
  );
}, 60_000);
