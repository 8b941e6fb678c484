/** A volume whose engine reaches each daemon through a proxy that spoils. Plain TCP on loopback;
 *  needs no root. */
import type { Cluster, ClusterOptions } from '../../support/cluster.js';
import type { FaultBed } from './fault-bed.js';
import { TcpProxy } from './tcp-proxy.js';

export class ProxyCluster {
  private constructor(
    readonly cluster: Cluster,
    readonly proxies: readonly TcpProxy[],
  ) {}

  /** Daemons and engine, ready. */
  static async start(bed: FaultBed, options: ClusterOptions = {}): Promise<ProxyCluster> {
    const proxies: TcpProxy[] = [];
    for (let n = 0; n < (options.replicas ?? 3); n += 1) proxies.push(await TcpProxy.listen(''));
    bed.lab.onClose(() => Promise.all(proxies.map((proxy) => proxy.close())));
    const cluster = await bed.makeCluster({
      ...options,
      address: () => '127.0.0.1:0',
      target: (index) => proxies[index]?.address ?? '',
    });
    const started = new ProxyCluster(cluster, proxies);
    for (const index of proxies.keys()) await started.startDaemon(index);
    await cluster.startEngine();
    return started;
  }

  /** On whatever port; the proxy leads there from now on. */
  async startDaemon(index: number): Promise<void> {
    await this.cluster.startDaemon(index);
    const proxy = this.proxies[index];
    if (proxy !== undefined) proxy.target = this.cluster.listening[index] ?? '';
  }
}
