/** Which call of the volume a request becomes. */
import assert from 'node:assert';
import type { BlockVolume } from '../block-volume.js';
import { COMMAND, COMMAND_FLAG as FLAG } from './constants.js';
import type { PendingRequest } from './pending-request.js';
import { STATUS_RUNS_MAX } from './reply-writer.js';

const FUA = { fua: true };
const NO_FUA = { fua: false };

/** Starts an admitted request that passed `checkRequest`; its owner hears how it went. */
export function startRequest(volume: BlockVolume, request: PendingRequest): void {
  const { type, flags, offsetBytes, lengthBytes, onDone, onFailed } = request;
  const durable = (flags & FLAG.FUA) !== 0 ? FUA : NO_FUA;
  switch (type) {
    case COMMAND.READ:
      volume.read(offsetBytes, lengthBytes).then(request.onRead, onFailed);
      return;
    case COMMAND.WRITE:
      volume.write(offsetBytes, lengthBytes, request.pieces, durable).then(onDone, onFailed);
      return;
    case COMMAND.FLUSH:
      volume.flush().then(onDone, onFailed);
      return;
    case COMMAND.TRIM:
      volume.trim(offsetBytes, lengthBytes, durable).then(onDone, onFailed);
      return;
    case COMMAND.WRITE_ZEROES: {
      const options = { fua: durable.fua, noHole: (flags & FLAG.NO_HOLE) !== 0 };
      volume.writeZeroes(offsetBytes, lengthBytes, options).then(onDone, onFailed);
      return;
    }
    default: {
      assert(type === COMMAND.BLOCK_STATUS, 'checkRequest lets only known commands pass');
      const runsMax = (flags & FLAG.REQ_ONE) !== 0 ? 1 : STATUS_RUNS_MAX;
      volume.blockStatus(offsetBytes, lengthBytes, runsMax).then(request.onStatus, onFailed);
    }
  }
}
