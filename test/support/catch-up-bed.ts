/** An engine bed in which a member that was away catches up, as `member-returns` lets it. */
import { pino } from 'pino';
import type { MissedWrites } from '../../engine/core/missed-writes.js';
import type { ReplicaLink } from '../../engine/core/replica-link.js';
import { CatchUp, type RegionTeller } from '../../engine/recovery/catch-up.js';
import { PACER_POLICY, Pacer } from '../../engine/recovery/pacer.js';
import { Progress } from '../../engine/recovery/progress.js';
import { RangeCopier } from '../../engine/recovery/range-copier.js';
import { crc32cVerify } from '../../native/index.js';
import type { ReplicaControl } from '../../proto/control.js';
import { type BedTuning, EngineBed } from './engine-bed.js';
import type { FakeReplica } from './fake-replica.js';

export type ControlCall = 'listRegions' | 'listExtents' | 'cleanRegion';

export interface CatchUpWish {
  /** nothing is remembered of what it missed: by dirty regions and tags */
  readonly forgets?: boolean;
  readonly suspectRegions?: readonly number[];
}

export class CatchUpBed extends EngineBed {
  readonly abort = new AbortController();
  readonly progress: Progress;
  readonly pacer: Pacer;
  /** `replica:call` of each control call, when it was answered */
  readonly calls: string[] = [];
  /** what a call waits for before its answer is made, and before it is sent, by `replica:call` */
  readonly waits = new Map<string, Partial<Record<'before' | 'after', () => Promise<void>>>>();
  /** bad copies that sources were found to have, as `replica:code:offset` */
  readonly badSources: string[] = [];
  /** resolves when the in-sync members are equal */
  whenEqual: () => Promise<void> = () => Promise.resolve();

  constructor(count: number, tuning: BedTuning = {}) {
    super(count, tuning);
    this.progress = new Progress(this.clock);
    this.pacer = new Pacer({
      clock: this.clock,
      policy: { ...PACER_POLICY, busyMs: 0 },
      lastClientMs: () => this.volume.lastOperationMs,
    });
  }

  /** A replica whose index is known to be there. */
  at(index: number): FakeReplica {
    const found = this.replicas[index];
    if (found === undefined) throw new Error(`no replica ${index}`);
    return found;
  }

  /** Attaches the member and brings it up to date; it may be promoted when this resolves. */
  async catchUp(index: number, wish: CatchUpWish = {}): Promise<ReplicaLink> {
    const { link, missed } = this.attach(index);
    if (wish.forgets === true) missed.forget();
    try {
      await this.#makeCatchUp(link, missed, wish.suspectRegions ?? []).run();
    } catch (error) {
      link.break(error as never);
      this.table.away.get(link.replicaId)?.add(missed);
      throw error;
    }
    return link;
  }

  #makeCatchUp(target: ReplicaLink, missed: MissedWrites, suspectRegions: readonly number[]) {
    const { table, lock, gate, clock, pacer, progress } = this;
    const copier = new RangeCopier({
      ...{ target, table, lock, gate, verifyBlocks: crc32cVerify },
      onBadCopy: (link, { code }, at) => this.badSources.push(`${link.replicaId}:${code}:${at}`),
    });
    return new CatchUp({
      ...{ volume: 'v', epoch: 1, target, missed, suspectRegions, table, lock, clock, pacer },
      ...{ copier, progress, log: pino({ level: 'silent' }), signal: this.abort.signal },
      targetTeller: this.tellerOf(target.replicaId),
      tellerOf: (replicaId) => this.tellerOf(replicaId),
      whenSettled: () => this.fanout.whenSettled(),
      whenEqual: () => this.whenEqual(),
      volumeBytes: () => this.sizeBytes,
    });
  }

  /** The control calls of one replica, answered from what it holds when the wait is over. */
  tellerOf(replicaId: string): RegionTeller {
    const replica = this.replicas.find((r) => r.replicaId === replicaId);
    if (replica === undefined) throw new Error(`no replica ${replicaId}`);
    const { copy } = replica;
    const answer = async <T>(call: ControlCall, make: () => T): Promise<T> => {
      const wait = this.waits.get(`${replicaId}:${call}`);
      await new Promise(setImmediate);
      await wait?.before?.();
      const reply = make();
      await wait?.after?.();
      this.calls.push(`${replicaId}:${call}`);
      return reply;
    };
    const control = {
      listRegions: (r) =>
        answer('listRegions', () => ({ regions: copy.regions(r.firstRegion, r.count) })),
      listExtents: (r) => answer('listExtents', () => ({ extents: copy.extents(r.region) })),
      cleanRegion: (r) =>
        answer('cleanRegion', () => {
          copy.cleanAs(r.region, r.tag, r.extentTags);
          return {};
        }),
    } satisfies Partial<ReplicaControl>;
    return { replicaId, control: control as unknown as ReplicaControl };
  }
}
