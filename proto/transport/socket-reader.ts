/**
 * Reading of a socket into memory we name (`onread` of node:net): pieces that are used again, or,
 * for a long message, straight into the memory where it is collected.
 *
 * The memory of the next read is fixed when the last one ends. So what `directTarget` returned
 * belongs to the socket until the next call of `directTarget` or the socket's end, whatever happens
 * to the stream meanwhile.
 */
import net from 'node:net';
import { ReadMemory, type ReadPiece } from './read-memory.js';

export interface ReadSink {
  /** Bytes of the connection. @param piece whom to hold if views of them are to live longer than
   * the call; undefined: nobody */
  receive(chunk: Buffer, piece: ReadPiece | undefined): void;
  /** Where the next bytes of the connection belong, if that is known. */
  directTarget(): Buffer | undefined;
  /** So many bytes were put where `directTarget` said. */
  receivedDirect(lengthBytes: number): void;
}

export class SocketReader {
  readonly #memory = new ReadMemory();
  #sink: ReadSink | undefined;
  #direct: Buffer | undefined;
  #lastBytes = 0;

  /** Option for node:net. */
  readonly onread: net.OnReadOpts = {
    buffer: () => this.#next(),
    callback: (lengthBytes) => {
      this.#take(lengthBytes);
      return true;
    },
  };

  /** Before anything is read. */
  attach(sink: ReadSink): void {
    this.#sink = sink;
  }

  #next(): Buffer {
    this.#direct = this.#sink?.directTarget();
    return this.#direct ?? this.#memory.next(this.#lastBytes).bytes;
  }

  #take(lengthBytes: number): void {
    if (this.#direct !== undefined) {
      this.#sink?.receivedDirect(lengthBytes);
      return;
    }
    this.#lastBytes = lengthBytes;
    const piece = this.#memory.current;
    const chunk = piece.bytes.subarray(0, lengthBytes);
    if (this.#memory.crowded) this.#sink?.receive(Buffer.from(chunk), undefined);
    else this.#sink?.receive(chunk, piece);
  }
}

interface SocketHandle {
  readStop(): number;
  reading?: boolean;
}

/** Moves an accepted connection to a new socket that is read by `reader`. node:net offers `onread`
 *  for outgoing connections only, so
 *  the handle is moved by its internal name; where that is not as we know it the result is
 *  undefined and nothing has changed.
 *  @param socket paused and not inside one of its events; afterwards it is dead (its `close` event
 *    comes) */
export function adopt(socket: net.Socket, reader: SocketReader): net.Socket | undefined {
  const inside = socket as unknown as { _handle?: SocketHandle | null };
  const handle = inside._handle;
  if (handle === undefined || handle === null || typeof handle.readStop !== 'function') {
    return undefined;
  }
  if (socket.destroyed || socket.readableLength > 0 || socket.writableLength > 0) return undefined;
  if (socket.readableEnded || socket.constructor !== net.Socket) return undefined;
  handle.readStop();
  handle.reading = false;
  inside._handle = null;
  const options = { handle, readable: true, writable: true, onread: reader.onread };
  const moved = new net.Socket(options as unknown as net.SocketConstructorOpts);
  socket.destroy();
  return moved;
}
