/**
 * Faults planted in the system under test, by wrapping what is injected into it. Each breaks one
 * rule; the simulator has to find each of them, or it proves nothing.
 */
import { BLOCK_SIZE } from '../../../common/units.js';
import { crc32cBlocks } from '../../../native/index.js';
import type { Membership, OpenReplicaReply } from '../../../proto/control.js';
import type { Disk } from '../../../replica/disk/disk.js';
import type { ReplicaStore, StoredRead } from '../../../replica/replica-store.js';
import { type Ground, NO_PLANTS, type Plants } from '../world/plants.js';
import { betrayedDisks, override } from './override.js';

export interface PlantedFault {
  readonly name: string;
  readonly breaks: string;
  /** the mix of faults that brings it to light */
  readonly mix: string;
  plant(ground: Ground): Plants;
}

/** Only this one betrays; the others are as they should be. */
const TRAITOR = 'node-2';
const RATE = 0.02;

type StoreChange = (store: ReplicaStore) => Partial<ReplicaStore>;

/** Stores are wrapped once each: a change keeps state per store. */
function onStores(change: StoreChange, who: 'one' | 'all' = 'one'): Plants {
  const wrapped = new WeakMap<ReplicaStore, ReplicaStore>();
  const wrap = (store: ReplicaStore): ReplicaStore => {
    let planted = wrapped.get(store);
    if (planted === undefined) {
      planted = override(store, change(store));
      wrapped.set(store, planted);
    }
    return planted;
  };
  const betray = (disk: Disk): Disk => {
    const openReplica: Disk['openReplica'] = async (volume) => {
      const handle = await disk.openReplica(volume);
      return new Proxy(handle, {
        get: (_target, name) => {
          const value: unknown = Reflect.get(handle, name, handle);
          if (name === 'store') return wrap(value as ReplicaStore);
          return typeof value === 'function' ? value.bind(handle) : value;
        },
      });
    };
    return override(disk, { openReplica });
  };
  return {
    ...NO_PLANTS,
    disks: (node, disks) =>
      who === 'one' && node !== TRAITOR ? disks : betrayedDisks(disks, betray),
  };
}

const copyOf = (bytes: Buffer) => ({ bytes: Buffer.from(bytes), release: () => undefined });

function alignedCopy(bytes: Buffer) {
  const memory = Buffer.from(new ArrayBuffer(bytes.length));
  bytes.copy(memory);
  return { bytes: memory, release: () => undefined };
}

function staleRead({ random }: Ground): Plants {
  return onStores((store) => {
    const before = new Map<string, StoredRead>();
    return {
      read: async (offsetBytes, lengthBytes, options) => {
        const key = `${offsetBytes} ${lengthBytes}`;
        const old = before.get(key);
        if (old !== undefined && random.chance(0.2)) {
          return { ...old, data: old.data === undefined ? undefined : copyOf(old.data.bytes) };
        }
        const read = await store.read(offsetBytes, lengthBytes, options);
        const data = read.data === undefined ? undefined : copyOf(read.data.bytes);
        before.set(key, { data, checksums: Buffer.from(read.checksums) });
        return read;
      },
    };
  }, 'all');
}

function tornBlock({ random }: Ground): Plants {
  return onStores((store) => ({
    write: async (offsetBytes, data, checksums) => {
      if (!random.chance(RATE)) return await store.write(offsetBytes, data, checksums);
      const at = random.int(data.bytes.length / BLOCK_SIZE) * BLOCK_SIZE;
      const old = await store.read(offsetBytes + at, BLOCK_SIZE, { raw: true });
      const torn = alignedCopy(data.bytes);
      const half = at + BLOCK_SIZE / 2;
      if (old.data === undefined) torn.bytes.fill(0, half, at + BLOCK_SIZE);
      else old.data.bytes.copy(torn.bytes, half, BLOCK_SIZE / 2);
      old.data?.release();
      data.release();
      const sums = Buffer.alloc((torn.bytes.length / BLOCK_SIZE) * 4);
      crc32cBlocks(torn.bytes, 0, torn.bytes.length, sums, 0);
      await store.write(offsetBytes, torn, sums);
    },
  }));
}

function lostWrite({ random }: Ground): Plants {
  return onStores((store) => ({
    write: async (offsetBytes, data, checksums) => {
      if (random.chance(RATE)) data.release();
      else await store.write(offsetBytes, data, checksums);
    },
  }));
}

/** A write that is over happens once more, later. */
function zombieWrite({ random, scheduler }: Ground): Plants {
  return onStores((store) => ({
    write: async (offsetBytes, data, checksums) => {
      if (random.chance(RATE)) {
        const again = alignedCopy(data.bytes);
        const sums = Buffer.from(checksums);
        scheduler.after(random.exponential(500), () => {
          store.write(offsetBytes, again, sums).catch(() => undefined);
        });
      }
      await store.write(offsetBytes, data, checksums);
    },
  }));
}

function ignoredFlush(): Plants {
  return onStores(() => ({ flush: async () => undefined }), 'all');
}

function missingExclusion(): Plants {
  return {
    ...NO_PLANTS,
    control: (_address, control) =>
      override(control, {
        setMembership: (async (request: { readonly membership: Membership }, options?: object) => {
          const excludes = request.membership.members.some(({ state }) => state === 'failed');
          if (excludes) return {};
          return await control.setMembership(request as never, options);
        }) as never,
      }),
  };
}

function skippedDirtyRegion(): Plants {
  return {
    ...NO_PLANTS,
    control: (_address, control) =>
      override(control, {
        openReplica: (async (request: unknown, options?: object) => {
          const reply = (await control.openReplica(request as never, options)) as OpenReplicaReply;
          return { ...reply, restartedDirty: false, dirtyRegions: [] };
        }) as never,
      }),
  };
}

/** P5: what was in flight when an engine died is not made equal. */
function skippedWindow(): Plants {
  return {
    ...NO_PLANTS,
    control: (_address, control) =>
      override(control, {
        openReplica: (async (request: unknown, options?: object) => {
          const reply = (await control.openReplica(request as never, options)) as OpenReplicaReply;
          return { ...reply, window: [] };
        }) as never,
      }),
  };
}

/** P6: a member that was away is told to miss nothing, and is promoted. */
function earlyPromotion(): Plants {
  const nothing = (async () => ({ regions: [] })) as never;
  return {
    ...NO_PLANTS,
    control: (_address, control) => override(control, { listRegions: nothing }),
  };
}

/** P2: one tag for everything that is ever cleaned. */
function tagReuse(): Plants {
  const tag = { epoch: 1, counter: 1 };
  return onStores((store) => ({ clean: async (region) => await store.clean(region, tag) }), 'all');
}

export const PLANTED_FAULTS: readonly PlantedFault[] = [
  { name: 'stale read', breaks: 'N1', mix: 'calm', plant: staleRead },
  { name: 'torn block', breaks: 'N2', mix: 'calm', plant: tornBlock },
  { name: 'lost write', breaks: 'N1, F2', mix: 'replica', plant: lostWrite },
  { name: 'zombie write', breaks: 'N5, R5', mix: 'engine', plant: zombieWrite },
  { name: 'ignored flush', breaks: 'D1, D2', mix: 'power', plant: ignoredFlush },
  { name: 'missing exclusion', breaks: 'P3, R3', mix: 'network', plant: missingExclusion },
  { name: 'skipped dirty region', breaks: 'P5, R1', mix: 'power', plant: skippedDirtyRegion },
  { name: 'early promotion', breaks: 'P6, R6', mix: 'rebuild', plant: earlyPromotion },
  { name: 'tag reuse', breaks: 'P2', mix: 'return', plant: tagReuse },
  { name: 'skipped in-flight window', breaks: 'P5, R1', mix: 'engine', plant: skippedWindow },
];
