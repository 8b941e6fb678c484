/** One request to the NBD server, from its creation until it is answered; survives broken
 *  connections. */
import { COMMAND } from '../nbd/constants.js';

const NO_BYTES = Buffer.alloc(0);

/**
 * The memory of `frame` belongs to the request until `complete` was called *and* every `holdFrame`
 * had its `releaseFrame`. Only then may the owner give it to someone else.
 */
export abstract class NbdRequest {
  /** COMMAND */
  type = 0;
  /** COMMAND_FLAG bits */
  flags = 0;
  offsetBytes = 0;
  lengthBytes = 0;
  /** REQUEST_BYTES for the header (the client fills them), then the payload of a WRITE */
  frame: Buffer = NO_BYTES;
  /** place in the table of unanswered requests, or -1; owned by the lane */
  slot = -1;
  /** the present connection has it; owned by the lane */
  sent = false;
  /** place in the table of active changes, or -1; owned by WriteOrder */
  orderIndex = -1;

  /** Changes content: must not overtake or be overtaken by an overlapping one. */
  get isChange(): boolean {
    return (
      this.type === COMMAND.WRITE ||
      this.type === COMMAND.TRIM ||
      this.type === COMMAND.WRITE_ZEROES
    );
  }

  /** The socket starts, and ends, to send from the memory of `frame`. */
  abstract holdFrame(): void;
  abstract releaseFrame(): void;

  /** Called exactly once.
   *  @param errno 0, or a Linux error number
   *  @param reply of a READ without error: SIMPLE_REPLY_BYTES that the callee may overwrite, then
   *  the data; borrowed until the call returns */
  abstract complete(errno: number, reply: Buffer | undefined): void;
}
