/**
 * Members added and taken off because a person asked for it.
 *
 * - Adding looks before it records: a daemon that does not answer, or that has a replica of the
 *   volume already, would leave a member behind that can never be made.
 * - Taking off never leaves the volume without an in-sync copy. A member in use is excluded first,
 *   like one that failed (P3), so that nothing is acknowledged that only it has.
 * - The bytes of a replica stay on its daemon unless their deletion is asked for: an old record on
 *   them leads a later start to the newest members.
 */
import { sleep } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import type {
  IdentifyReply,
  RemoveReplicaReply,
  RemoveReplicaRequest,
  ReplicaControl,
} from '../../proto/control.js';
import type { LinkTable } from '../core/link-table.js';
import type { MembershipKeeper } from '../core/membership-keeper.js';
import { type EngineConfig, REPLICAS_MAX } from '../engine-config.js';
import type { EngineEnvironment } from '../engine-environment.js';
import type { EventLog } from '../events/event-log.js';
import { checkReplicaAddress } from '../exposure.js';
import type { MemberReturns } from './member-returns.js';

export interface MemberChangesOptions {
  readonly config: EngineConfig;
  readonly environment: EngineEnvironment;
  readonly data: {
    readonly table: Pick<LinkTable, 'away'>;
    /** while it is active, copies are being made equal */
    readonly unequal: { readonly active: boolean };
    forgetIndex(replicaId: string): void;
  };
  readonly events: EventLog;
  readonly keeper: MembershipKeeper;
  readonly returns: Pick<MemberReturns, 'join' | 'release' | 'want' | 'forget'>;
  readonly epoch: number;
  readonly known: Map<string, { readonly address: string; readonly control: ReplicaControl }>;
}

/** The daemon refuses to delete while it still sees the end of our data stream coming. */
const DELETE_ATTEMPTS = 10;
const DELETE_PAUSE_MS = 200;

export class MemberChanges {
  readonly #options: MemberChangesOptions;

  constructor(options: MemberChangesOptions) {
    this.#options = options;
  }

  /** A new member on the daemon at `address`, filled in the background. @returns its id
   *  @throws StorageError INVALID_ARGUMENT | PERMISSION (exposure) | LIMIT_EXCEEDED | UNAVAILABLE |
   *    ALREADY_EXISTS | why the record cannot be changed */
  async join(address: string): Promise<string> {
    const { config, keeper, returns } = this.#options;
    const { volume } = config;
    checkReplicaAddress(address, config);
    if (keeper.set.record.members.length >= REPLICAS_MAX) {
      const text = `volume ${volume} has ${REPLICAS_MAX} replicas already`;
      throw new StorageError('LIMIT_EXCEEDED', text, { volume });
    }
    const there = (await this.#identify(address)).replicas.find((r) => r.volume === volume);
    if (there !== undefined) throw this.#alreadyThere(there.replicaId, address);
    const planned = keeper.set.record.members.find(
      (m) => m.address === address && m.state === 'rebuilding',
    );
    if (planned !== undefined) throw this.#alreadyThere(planned.replicaId, address);
    return returns.join(address);
  }

  async #identify(address: string): Promise<IdentifyReply> {
    const { config, environment } = this.#options;
    const { volume, tuning } = config;
    const control = environment.network.control(address, tuning.controlDeadlineMs);
    try {
      return await control.identify({ volume });
    } catch (cause) {
      const { message } = toStorageError(cause, `identify ${address}`);
      const text = `no replica daemon answers at ${address}: ${message}`;
      const hint = 'start the daemon there first, or correct the address';
      throw new StorageError('UNAVAILABLE', text, { volume, hint }, { cause });
    } finally {
      control.close();
    }
  }

  #alreadyThere(replica: string, address: string): StorageError {
    const { config, keeper } = this.#options;
    const { volume } = config;
    const isMember = keeper.set.roleOf(replica) !== undefined;
    const text = isMember
      ? `the daemon at ${address} has replica ${replica}, a member of volume ${volume}`
      : `the daemon at ${address} holds replica ${replica}, taken off volume ${volume} earlier`;
    const hint = isMember
      ? 'one daemon keeps one copy of a volume'
      : `aurochs replica remove ${volume} ${replica} --delete-data --address ${address}`;
    return new StorageError('ALREADY_EXISTS', text, { volume, replica, hint });
  }

  /** Takes a member off the record; durable when it resolves. What stays of its data is told.
   *  @throws StorageError NOT_FOUND (no member) | CONFLICT (the last in-sync copy) | why the record
   *    cannot be changed */
  async leave(request: RemoveReplicaRequest): Promise<RemoveReplicaReply> {
    const { keeper, returns, known, data, events } = this.#options;
    const { replicaId } = request;
    const member = keeper.set.record.members.find((m) => m.replicaId === replicaId);
    if (member === undefined) return this.#leftover(request);
    this.#checkLeave(replicaId);
    const ended = returns.release(replicaId);
    try {
      await this.#takeOut(replicaId, ended);
      keeper.set.leave(replicaId);
      await keeper.changed();
    } catch (error) {
      returns.want(replicaId);
      throw error;
    }
    const place = known.get(replicaId);
    const address = place?.address ?? member.address;
    place?.control.close();
    known.delete(replicaId);
    returns.forget(replicaId);
    data.table.away.delete(replicaId);
    data.forgetIndex(replicaId);
    const { generation } = keeper.set.record;
    const text = `taken off the record: generation ${generation}`;
    events.add('left', text, { replica: replicaId, generation });
    if (!request.deleteData) return { dataDeleted: false, dataAddress: address, note: '' };
    return this.#deleteData(replicaId, address);
  }

  /** R4: somebody must be left who has every acknowledged write. */
  #checkLeave(replica: string): void {
    const { keeper, data } = this.#options;
    if (keeper.set.roleOf(replica) !== 'in-sync') return;
    if (keeper.set.healthy().length < 2) {
      throw new StorageError('CONFLICT', `replica ${replica} is the last in-sync copy`, {
        replica,
        hint: 'add another replica, and wait until it is in-sync',
      });
    }
    if (data.unequal.active) {
      const text = 'the copies are being made equal after an unclean stop';
      throw new StorageError('CONFLICT', `replica ${replica} is in use: ${text}`, {
        replica,
        hint: 'wait until that is done (aurochs explain shows it)',
      });
    }
  }

  /** The member is out, durably, and no attempt to bring it back is under way. */
  async #takeOut(replica: string, ended: Promise<void>): Promise<void> {
    const { keeper } = this.#options;
    const reason = new StorageError('ABORTED', 'it is taken off on request', { replica });
    // In the same step of the event loop as the check before it.
    if (keeper.set.roleOf(replica) !== 'out') keeper.fail(replica, reason);
    await ended;
    await keeper.changed();
    const role = keeper.set.roleOf(replica);
    if (role === 'out') return;
    throw new StorageError('CONFLICT', `replica ${replica} is ${role ?? 'no member any more'}`, {
      replica,
    });
  }

  /** No member: at most its bytes are left somewhere. */
  async #leftover(request: RemoveReplicaRequest): Promise<RemoveReplicaReply> {
    const { replicaId, deleteData, address } = request;
    const { config } = this.#options;
    if (!deleteData || address === '') {
      const text = `replica ${replicaId} is no member of volume ${config.volume}`;
      throw new StorageError('NOT_FOUND', text, { replica: replicaId });
    }
    checkReplicaAddress(address, config);
    return this.#deleteData(replicaId, address);
  }

  async #deleteData(replicaId: string, address: string): Promise<RemoveReplicaReply> {
    const { config, environment, epoch, events } = this.#options;
    const { volume, tuning } = config;
    const control = environment.network.control(address, tuning.controlDeadlineMs);
    try {
      for (let left = DELETE_ATTEMPTS; ; left -= 1) {
        try {
          await control.deleteReplica({ volume, replicaId, epoch });
          break;
        } catch (cause) {
          const error = toStorageError(cause, `delete replica ${replicaId}`);
          if (error.code !== 'CONFLICT' || left <= 1) throw error;
          await sleep(environment.clock, DELETE_PAUSE_MS);
        }
      }
      events.add('left', `its data at ${address} is deleted`, { replica: replicaId });
      return { dataDeleted: true, dataAddress: '', note: '' };
    } catch (cause) {
      const { code, message } = toStorageError(cause, `delete replica ${replicaId}`);
      return { dataDeleted: false, dataAddress: address, note: `${code}: ${message}` };
    } finally {
      control.close();
    }
  }
}
