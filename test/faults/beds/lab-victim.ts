/** For lab.test.ts, which kills it: makes one of everything that a fault test makes, prints its
 *  folder, and waits. */
import { MIB } from '../../../common/units.js';
import { Cluster } from '../../support/cluster.js';
import { run } from '../../support/process.js';
import { FaultDisk } from './fault-disk.js';
import { Lab } from './lab.js';
import { Network } from './network.js';

const lab = await Lab.open();
const network = await Network.create(lab, ['a']);
const disk = await FaultDisk.create(lab, { name: 'disk', sizeBytes: 64 * MIB, seed: 1 });
await run('mkfs.ext4', ['-q', disk.device]);
const dir = await lab.makeDir('mnt');
await run('mount', [disk.device, dir]);
const cluster = await Cluster.make({
  dir: lab.dir,
  size: '16MiB',
  device: true,
  replicas: 1,
  disk: (index) => `${dir}/disk${index}`,
  diskSize: '24MiB',
  launch: (who) => (who === 0 ? {} : { prefix: network.on('a') }),
});
await cluster.startDaemons();
await cluster.startEngine();
process.stdout.write(`ready ${lab.dir} ${cluster.device}\n`);
setInterval(() => undefined, 1_000_000);
