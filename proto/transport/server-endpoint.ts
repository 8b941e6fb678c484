/** The serving side of a connection whose client carries our mark. */
import { StorageError } from '../../common/errors.js';
import type { MessageStream, MessageStreamHandlers } from '../message-stream.js';
import { errorHeaders, errorOfTrailers, IO_PATH } from './client-endpoint.js';
import { Endpoint, type EndpointOptions, firstFrames } from './endpoint.js';
import { CODE_KEY } from './error-metadata.js';
import { H2_ERROR, Http2Error, headersFrame, rstStreamFrame, STREAM_ID } from './frame.js';
import { encodeHeaders, type HeaderList } from './hpack.js';

const RESPONSE: HeaderList = [
  [':status', '200'],
  ['content-type', 'application/grpc'],
];

export class ServerEndpoint extends Endpoint {
  #requested = false;
  #responded = false;
  readonly #onOpen: (stream: MessageStream) => MessageStreamHandlers;

  /** The caller has read preface and first SETTINGS to see the mark; it passes all bytes but the
   *  preface to `receive`.
   *  @param options.onOpen the request has come: who handles the stream? */
  constructor(
    options: EndpointOptions & {
      readonly onOpen: (stream: MessageStream) => MessageStreamHandlers;
    },
  ) {
    super(options);
    this.#onOpen = options.onOpen;
    this.write(firstFrames(1));
  }

  protected override get streamOpen(): boolean {
    return this.#requested;
  }

  protected override sendEnd(): void {
    this.finish(undefined, () => this.#sendTrailers([['grpc-status', '0']]));
  }

  protected override sendError(error: StorageError): void {
    if (this.#requested) this.#sendTrailers(errorHeaders(error));
    else this.goodbye();
  }

  protected override onEndOfData(): void {
    this.peerEnded(undefined, () => this.#sendTrailers([['grpc-status', '0']]));
  }

  protected override onHeaders(streamId: number, headers: HeaderList, endStream: boolean): void {
    if (streamId !== STREAM_ID) {
      if (streamId % 2 === 0 || !this.#requested) {
        throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, `HEADERS on stream ${streamId}`);
      }
      this.queue.control(rstStreamFrame(streamId, H2_ERROR.REFUSED_STREAM));
      return;
    }
    if (!this.#requested) {
      this.#open(headers, endStream);
      return;
    }
    if (!endStream) throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'headers inside the stream');
    // A specialised client tells its error so; an ordinary one has nothing to say here.
    const told = headers.some(([name]) => name === CODE_KEY);
    const error = told ? errorOfTrailers(headers, this.peer) : undefined;
    this.peerEnded(error, () => this.#sendTrailers([['grpc-status', '0']]));
  }

  #open(headers: HeaderList, endStream: boolean): void {
    this.#requested = true;
    const values = new Map(headers);
    const path = values.get(':path') ?? '';
    const type = values.get('content-type') ?? '';
    if (values.get(':method') !== 'POST' || !type.startsWith('application/grpc')) {
      throw new StorageError('PROTOCOL_ERROR', `${this.peer} asks for something that is not gRPC`);
    }
    if (path !== IO_PATH) {
      const shown = JSON.stringify(path.substring(0, 80));
      throw new StorageError('UNSUPPORTED', `path ${shown} is not served on this connection`);
    }
    this.handlers = this.#onOpen(this);
    if (this.settled) return;
    this.#respond(false);
    if (endStream) this.onEndOfData();
  }

  #respond(endStream: boolean, trailers: HeaderList = []): void {
    this.#responded = true;
    this.write(headersFrame(encodeHeaders([...RESPONSE, ...trailers]), endStream));
  }

  #sendTrailers(trailers: HeaderList): void {
    this.sentEnd = true;
    if (this.#responded) this.write(headersFrame(encodeHeaders(trailers), true));
    else this.#respond(true, trailers);
    if (!this.receivedEnd) this.write(rstStreamFrame(STREAM_ID, H2_ERROR.NO_ERROR));
    this.goodbye();
  }
}
