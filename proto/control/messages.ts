/** The control messages of proto/replica.proto and proto/engine.proto as the rest of the project
 *  sees them.
 *  Every number is a safe integer unless it says otherwise; every text of a request passed
 *  `common/names.ts` where it is a name. */

export type ControlMemberState = 'in-sync' | 'rebuilding' | 'failed';

export interface Member {
  readonly replicaId: string;
  /** where the engine last found it; a hint, never an identity */
  readonly address: string;
  readonly state: ControlMemberState;
}

/** The membership record. Order: epoch, then generation (P12). */
export interface Membership {
  readonly epoch: number;
  readonly generation: number;
  readonly members: readonly Member[];
  /** engine whose tenure stored it; '' : stored at creation */
  readonly engineId: string;
  /** grows when a start had to accept lost writes */
  readonly era: number;
}

export interface IdentifyRequest {
  /** '' : all volumes */
  readonly volume: string;
}

export interface DiskInfo {
  readonly diskId: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly usedBytes: number;
  readonly reservedBytes: number;
  readonly state: 'ready' | 'failed' | 'refused';
  readonly reason: string;
}

export interface ReplicaInfo {
  readonly volume: string;
  readonly replicaId: string;
  readonly diskId: string;
  readonly sizeBytes: number;
  /** highest that any engine has claimed it with: lower ones are refused (P4) */
  readonly epoch: number;
  readonly membership: Membership;
  readonly allocatedBytes: number;
  /** how many */
  readonly dirtyRegions: number;
  readonly failed: boolean;
  readonly failedReason: string;
  /** as OpenReplica would say it now */
  readonly lossy: boolean;
  readonly restartedDirty: boolean;
  /** P7: of this replica; another one after each load that followed a failure */
  readonly incarnation: string;
}

export interface IdentifyReply {
  readonly daemonId: string;
  readonly incarnation: string;
  readonly bootId: string;
  readonly disks: readonly DiskInfo[];
  readonly replicas: readonly ReplicaInfo[];
  readonly clusterId: string;
}

export interface CreateReplicaRequest {
  readonly volume: string;
  /** a multiple of BLOCK_SIZE, at most VOLUME_SIZE_MAX */
  readonly sizeBytes: number;
  readonly replicaId: string;
  readonly membership: Membership;
}

export interface OpenReplicaRequest {
  readonly volume: string;
  readonly replicaId: string;
  /** at least 1 */
  readonly epoch: number;
  readonly engineId: string;
}

export interface ByteRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export interface OpenReplicaReply {
  readonly info: ReplicaInfo;
  readonly incarnation: string;
  /** P10: the daemon lost power while regions were dirty */
  readonly lossy: boolean;
  /** region numbers */
  readonly dirtyRegions: readonly number[];
  readonly restartedDirty: boolean;
  readonly window: readonly ByteRange[];
  /** since the replica last received or sent anything on a data stream of an older tenure, or since
   *  the daemon's start; finite, with fraction, on the daemon's monotonic clock */
  readonly silentMs: number;
  /** engine of the epoch that was persisted before; '' : none */
  readonly previousEngineId: string;
}

export interface SetMembershipRequest {
  readonly volume: string;
  readonly replicaId: string;
  readonly membership: Membership;
}

export type SetMembershipReply = Record<string, never>;

export interface DeleteReplicaRequest {
  readonly volume: string;
  readonly replicaId: string;
  readonly epoch: number;
}

export type DeleteReplicaReply = Record<string, never>;

/** Name of the content that a clean gave (P2); {0, 0}: none. */
export interface Tag {
  readonly epoch: number;
  readonly counter: number;
}

export interface ListRegionsRequest {
  readonly volume: string;
  readonly replicaId: string;
  /** the opened one (R5) */
  readonly epoch: number;
  readonly firstRegion: number;
  /** 1 to 4096 */
  readonly count: number;
}

export interface RegionInfo {
  readonly number: number;
  readonly dirty: boolean;
  /** how many */
  readonly allocatedExtents: number;
  /** of the last clean; equal tags of regions that are both clean prove equal content */
  readonly tag: Tag;
}

export interface ListRegionsReply {
  /** ascending; regions that are clean, without tag and without extents may be left out */
  readonly regions: readonly RegionInfo[];
}

export interface ListExtentsRequest {
  readonly volume: string;
  readonly replicaId: string;
  readonly epoch: number;
  readonly region: number;
}

export interface ExtentInfo {
  /** in the volume */
  readonly number: number;
  readonly allocated: boolean;
  /** since the dirty mark; true for all where the mark is older than the daemon */
  readonly written: boolean;
  readonly tag: Tag;
}

export interface ListExtentsReply {
  /** ascending: extents that are allocated or were written since the dirty mark */
  readonly extents: readonly ExtentInfo[];
}

export interface ExtentTag {
  readonly extent: number;
  /** never {0, 0} */
  readonly tag: Tag;
}

export interface CleanRegionRequest {
  readonly volume: string;
  readonly replicaId: string;
  readonly epoch: number;
  readonly region: number;
  /** {0, 0} only without extents: the source was never written there */
  readonly tag: Tag;
  /** exactly the allocated extents of the region, each once */
  readonly extentTags: readonly ExtentTag[];
}

export type CleanRegionReply = Record<string, never>;

/** P10: the replica was made equal to one that holds every acknowledged write, and flushed. */
export interface NoteCompleteRequest {
  readonly volume: string;
  readonly replicaId: string;
  readonly epoch: number;
  /** as OpenReplica told it */
  readonly incarnation: string;
}

export type NoteCompleteReply = Record<string, never>;
