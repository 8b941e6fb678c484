/** Faults of disks and metadata stores. */
import type { FaultAct } from './fault.js';
import type { Injector } from './injector.js';

export function injectDiskFault(injector: Injector, act: FaultAct): void {
  if (!('replica' in act)) return;
  const node = injector.replica(act.replica ?? 0);
  const { disk, metadata } = node;
  const { nowMs } = injector.cluster;
  switch (act.kind) {
    case 'disk-error': {
      const effect = { kind: 'error' as const, errno: act.errno };
      injector.lasting(act.forMs, disk.faults.add({ ...act, ops: [act.op], effect }));
      return;
    }
    case 'metadata-error': {
      const effect = { kind: 'error' as const, errno: act.errno };
      injector.lasting(act.forMs, metadata.faults.add({ ...act, rate: 1, ops: [act.op], effect }));
      return;
    }
    case 'disk-slow':
      disk.faults.slowness = act.factor;
      disk.faults.hangRate = act.hangRate;
      injector.lasting(act.forMs, () => {
        disk.faults.slowness = 1;
        disk.faults.hangRate = 0;
      });
      return;
    case 'flush-stall':
      disk.faults.flushStallUntilMs = nowMs + act.forMs;
      injector.lasting(act.forMs, () => {
        disk.faults.flushStallUntilMs = 0;
      });
      return;
    case 'disk-stall':
      disk.faults.stallUntilMs = nowMs + act.forMs;
      metadata.faults.stallUntilMs = nowMs + act.forMs;
      injector.lasting(act.forMs, () => {
        disk.faults.stallUntilMs = 0;
        metadata.faults.stallUntilMs = 0;
      });
      return;
    case 'disk-gone':
      disk.faults.gone = true;
      metadata.faults.gone = true;
      injector.lasting(act.forMs, () => {
        disk.faults.gone = false;
        metadata.faults.gone = false;
      });
      return;
    case 'rot':
      for (let n = 0; n < act.pages; n += 1) {
        // Not the superblocks: they would be noticed at the next start only.
        const pages = disk.usedPages().filter((page) => page >= 256);
        if (pages.length > 0) disk.rot(disk.random.pick(pages));
      }
      return;
    case 'lying-write':
      disk.faults.add({ ops: ['write'], rate: 1, count: act.count, effect: { kind: act.how } });
      return;
    default:
      throw new Error(`fault ${act.kind} is not one of a disk`);
  }
}
