/** A volume whose daemons and engine are hosts of a network of their own, with TLS between them. */

import { makeAuthority } from '../../proto/transport/certificates.js';
import type { Cluster, ClusterOptions } from '../../support/cluster.js';
import { missing } from '../../support/host.js';
import type { FaultBed } from './fault-bed.js';
import { Network, networkLacks, PORT } from './network.js';

export function networkClusterLacks(): string | undefined {
  return networkLacks() ?? missing('openssl');
}

export interface NetworkCluster {
  readonly network: Network;
  readonly cluster: Cluster;
}

/** Hosts `engine`, `second` (for another engine) and `replica1` … ; nothing runs yet. */
export async function makeNetworkCluster(
  bed: FaultBed,
  options: ClusterOptions = {},
): Promise<NetworkCluster> {
  const count = options.replicas ?? 3;
  const replicas = Array.from({ length: count }, (_, index) => `replica${index + 1}`);
  const network = await Network.create(bed.lab, ['engine', 'second', ...replicas]);
  const authority = makeAuthority();
  bed.lab.onClose(async () => authority.remove());
  const names = network.hosts.map((host) => `IP:${network.addressOf(host)}`).join(',');
  const { ca, cert, key } = authority.issue('host', names);
  const tls = ['--tls-ca', ca, '--tls-cert', cert, '--tls-key', key];
  const cluster = await bed.makeCluster({
    ...options,
    address: (index) => `${network.addressOf(`replica${index + 1}`)}:${PORT}`,
    launch: (who) => ({
      prefix: network.on(typeof who === 'number' ? `replica${who + 1}` : who),
    }),
    engineFlags: tls,
    replicaFlags: tls,
  });
  return { network, cluster };
}

/** Daemons and engine, ready. */
export async function startNetworkCluster(
  bed: FaultBed,
  options: ClusterOptions = {},
): Promise<NetworkCluster> {
  const made = await makeNetworkCluster(bed, options);
  await made.cluster.startDaemons();
  await made.cluster.startEngine();
  return made;
}
