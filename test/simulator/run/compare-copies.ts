/** Compares stopped copies block by block, from what their disks hold, by the production code. */
import { StorageError } from '../../../common/errors.js';
import { type CompareReport, compareReplicas } from '../../../replica/compare.js';
import { SimDevice } from '../disk/sim-device.js';
import { SimBufferPool } from '../disk/sim-pool.js';
import { type Cluster, VOLUME } from '../world/cluster.js';
import { CLUSTER_ID, type ReplicaNode } from '../world/replica-node.js';

/** Needs the scheduler to run meanwhile. @throws StorageError why a disk cannot be read */
export function compareCopies(
  cluster: Cluster,
  members: readonly ReplicaNode[],
): Promise<CompareReport> {
  const auditors = members.map((node) => ({ node, process: node.host.start('auditor') }));
  const auditorOf = (holds: (node: ReplicaNode) => boolean, what: string) => {
    const found = auditors.find(({ node }) => holds(node));
    if (found === undefined) throw new StorageError('NOT_FOUND', what);
    return found;
  };
  return compareReplicas({
    volume: VOLUME,
    listMax: 10_000,
    pool: new SimBufferPool(),
    log: cluster.story.logger('compare'),
    disks: auditors.map(({ node, process }) => ({
      path: node.disk.options.name,
      metaDir: '/meta',
      identity: { clusterId: CLUSTER_ID, daemonId: node.daemonId },
      home: node.metadata.files(process),
    })),
    openDevice: async (path) => {
      const { node, process } = auditorOf((one) => one.disk.options.name === path, path);
      return new SimDevice(node.disk, process);
    },
    openKv: (directory, options) => {
      const { node, process } = auditorOf((n) => n.metadata.databases.has(directory), directory);
      return node.metadata.openKv(process)(directory, options);
    },
  });
}
