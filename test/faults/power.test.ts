/** Power is cut under load; file systems and daemons come back from what the disks had. More of it:
 *  long/power.test.ts. */
import { describe, expect, it } from 'vitest';
import { expectSound, FaultBed } from './beds/fault-bed.js';
import { PowerCluster, powerHostLacks } from './beds/power-host.js';

const lacks = powerHostLacks();

describe.skipIf(lacks !== undefined)(`power cut ${lacks ?? ''}`, () => {
  const bed = FaultBed.use();

  it('scenario 58: of all copies at once: durable is durable, all equal (F3, R1)', async () => {
    const power = await PowerCluster.start(bed.lab, { seed: bed.seed });
    const load = bed.load(power.cluster);
    await load.start();
    await load.more(200);
    await power.cutAll(load);
    await power.restore(() => bed.random.pick(['kept', 'dropped', 'subset']));
    await power.cluster.startEngine();
    load.served();
    await load.sweep();
    expectSound(load);
    await power.cluster.stop();
    await power.cluster.expectEqual();
    expect(load.acknowledged).toBeGreaterThan(199);
  }, 60_000);
});
