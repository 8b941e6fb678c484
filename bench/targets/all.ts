/** Every target, in the order of the tables: for each number of copies the references first. */
import { aurochsTarget } from './aurochs.js';
import { floorTarget } from './floor.js';
import { nbdkitTarget } from './nbdkit-file.js';
import { qemuQuorumTarget } from './qemu-quorum.js';
import { rawTarget } from './raw.js';
import type { Target } from './target.js';

export const TARGETS: readonly Target[] = [
  rawTarget(1),
  floorTarget(1),
  aurochsTarget(1),
  nbdkitTarget(),
  rawTarget(3),
  floorTarget(3),
  aurochsTarget(3),
  qemuQuorumTarget(),
];
