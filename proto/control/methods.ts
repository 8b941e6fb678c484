/** The rpcs of each control service: path, request and reply codec. Client and server are both made
 * from these tables. */
import type { Codec } from './codec.js';
import { CODECS } from './convert.js';
import { ENGINE_CODECS } from './engine-convert.js';

export interface Method<Request, Reply> {
  readonly path: string;
  readonly request: Codec<Request>;
  readonly reply: Codec<Reply>;
}

function method<Request, Reply>(
  path: string,
  request: Codec<Request>,
  reply: Codec<Reply>,
): Method<Request, Reply> {
  return { path, request, reply };
}

const R = '/aurochs.v1.ReplicaControl';
const E = '/aurochs.v1.EngineControl';
const C = CODECS;
const N = ENGINE_CODECS;

export const REPLICA_METHODS = {
  identify: method(`${R}/Identify`, C.identifyRequest, C.identifyReply),
  createReplica: method(`${R}/CreateReplica`, C.createReplicaRequest, C.replicaInfo),
  openReplica: method(`${R}/OpenReplica`, C.openReplicaRequest, C.openReplicaReply),
  setMembership: method(`${R}/SetMembership`, C.setMembershipRequest, C.setMembershipReply),
  deleteReplica: method(`${R}/DeleteReplica`, C.deleteReplicaRequest, C.deleteReplicaReply),
  listRegions: method(`${R}/ListRegions`, C.listRegionsRequest, C.listRegionsReply),
  listExtents: method(`${R}/ListExtents`, C.listExtentsRequest, C.listExtentsReply),
  cleanRegion: method(`${R}/CleanRegion`, C.cleanRegionRequest, C.cleanRegionReply),
  noteComplete: method(`${R}/NoteComplete`, C.noteCompleteRequest, C.noteCompleteReply),
};

export const ENGINE_METHODS = {
  status: method(`${E}/Status`, N.engineStatusRequest, N.engineStatus),
  stop: method(`${E}/Stop`, N.engineStopRequest, N.engineStopReply),
  events: method(`${E}/Events`, N.engineEventsRequest, N.engineEventsReply),
  addReplica: method(`${E}/AddReplica`, N.addReplicaRequest, N.addReplicaReply),
  removeReplica: method(`${E}/RemoveReplica`, N.removeReplicaRequest, N.removeReplicaReply),
  scrub: method(`${E}/Scrub`, N.scrubRequest, N.scrubReport),
};
