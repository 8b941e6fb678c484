/** The conformance suite on every implementation that there is. */
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { MIB } from '../../common/units.js';
import { createBufferPool, type IoBackend, openBlockDevice } from '../../native/index.js';
import { blockDeviceConformance, type Implementation } from '../conformance/block-device.js';
import { missing } from '../support/host.js';
import { LoopDevice } from '../support/loop-device.js';
import { MemoryBufferPool, MemoryDisk } from '../support/memory-device.js';

const POOL_BYTES = 64 * MIB;

function fileWith(backend: IoBackend): Implementation {
  return {
    name: `file, ${backend}`,
    async create(sizeBytes) {
      const dir = await mkdtemp(path.join(tmpdir(), 'aurochs-native-'));
      const file = path.join(dir, 'disk');
      await writeFile(file, '');
      await truncate(file, sizeBytes);
      return {
        pool: createBufferPool({ limitBytes: POOL_BYTES }),
        open: () => openBlockDevice(file, { backend, exclusive: true }),
        destroy: () => rm(dir, { recursive: true }),
      };
    },
  };
}

function loopWith(backend: IoBackend): Implementation {
  return {
    name: `loop device, ${backend}`,
    skip: missing('root', 'loop', 'losetup'),
    async create(sizeBytes) {
      const dir = await mkdtemp(path.join(tmpdir(), 'aurochs-native-'));
      const loop = await LoopDevice.create(path.join(dir, 'disk'), sizeBytes);
      return {
        pool: createBufferPool({ limitBytes: POOL_BYTES }),
        open: () => openBlockDevice(loop.path, { backend, exclusive: true }),
        async destroy() {
          await loop.detach();
          await rm(dir, { recursive: true });
        },
      };
    },
  };
}

const memory: Implementation = {
  name: 'memory',
  async create(sizeBytes) {
    const disk = new MemoryDisk({ sizeBytes });
    return {
      pool: new MemoryBufferPool(),
      open: async () => disk.open(),
      destroy: async () => undefined,
    };
  },
};

for (const backend of ['io_uring', 'threads'] as const) {
  blockDeviceConformance(fileWith(backend));
  blockDeviceConformance(loopWith(backend));
}
blockDeviceConformance(memory);
