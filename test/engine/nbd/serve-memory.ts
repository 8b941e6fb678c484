/** A process that serves a MemoryVolume, for measurements: `node serve-memory.js SOCKET SIZE`.
 *  Ends with SIGTERM. */
import { SystemClock } from '../../../common/clock.js';
import { createLogger } from '../../../common/log.js';
import { parseSize } from '../../../common/units.js';
import { NbdServer } from '../../../engine/nbd/server.js';
import { MemoryVolume } from '../../support/memory-volume.js';

const [path = 'nbd.sock', size = '1GiB'] = process.argv.slice(2);
const volume = new MemoryVolume({ sizeBytes: parseSize(size) });
const server = await NbdServer.listen({
  exports: [{ name: '', volume }],
  address: { path },
  log: createLogger('serve-memory'),
  clock: new SystemClock(),
});
process.once('SIGTERM', () => void server.close({ drain: true }));
process.stdout.write(`ready ${server.uri}\n`);
