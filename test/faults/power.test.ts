/** Power is cut under load; file systems and daemons come back from what the disks had (F3). */
import { describe, expect, it } from 'vitest';
import { expectSound, FaultBed } from './beds/fault-bed.js';
import { PowerCluster, powerHostLacks } from './beds/power-host.js';

const lacks = powerHostLacks();

describe.skipIf(lacks !== undefined)(`power cuts ${lacks ?? ''}`, () => {
  const bed = FaultBed.use();

  /** Writes that are torn are torn at 512 bytes, the smallest block that is advertised (N2). */
  it.each([
    { fates: ['kept', 'dropped', 'subset'] as const, cellBytes: 4096 },
    { fates: ['torn', 'subset', 'torn'] as const, cellBytes: 512 },
  ])(
    'scenario 58: of all copies at once, un-flushed writes $fates: durable is durable (F3, R1)',
    async ({ fates, cellBytes }) => {
      const { seed, random } = bed;
      const power = await PowerCluster.start(bed.lab, { seed });
      const { cluster } = power;
      const load = bed.load(cluster, { cellBytes });
      for (let round = 0; round < 3; round += 1) {
        await load.start();
        await load.more(300);
        await bed.someTime(0, 300);
        load.lostPower();
        await power.cut();
        await load.ended();
        await cluster.stopEngine('SIGKILL');
        await power.restore(() => random.pick(fates));
        await cluster.startEngine();
        load.served();
        await load.sweep();
        expectSound(load);
      }
      expect(load.acknowledged).toBeGreaterThan(900);
      await cluster.stop();
      await cluster.expectEqual();
    },
    60_000,
  );
});
