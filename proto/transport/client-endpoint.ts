/** The calling side: opens the connection with preface, settings and the one request, and reads
 * response headers and trailers. */
import { StorageError } from '../../common/errors.js';
import type { MessageStreamHandlers } from '../message-stream.js';
import { Endpoint, type EndpointOptions, firstFrames } from './endpoint.js';
import {
  CODE_KEY,
  DETAILS_KEY,
  decodeGrpcMessage,
  encodeGrpcMessage,
  errorOfFailure,
  failureOf,
} from './error-metadata.js';
import {
  END_STREAM_FRAME,
  H2_ERROR,
  Http2Error,
  headersFrame,
  PREFACE,
  rstStreamFrame,
  STREAM_ID,
} from './frame.js';
import { encodeHeaders, type HeaderList } from './hpack.js';

/** The rpc that carries the data stream. */
export const IO_PATH = '/aurochs.v1.ReplicaData/Io';

/** Headers by which either side tells an error: as trailers, or (specialised endpoints only) as
 * trailers of a request. */
export function errorHeaders(error: StorageError): Array<readonly [string, string]> {
  const failure = failureOf(error);
  const headers: Array<readonly [string, string]> = [
    ['grpc-status', String(failure.status)],
    ['grpc-message', encodeGrpcMessage(failure.message)],
    [CODE_KEY, failure.code ?? ''],
  ];
  if (failure.details) headers.push([DETAILS_KEY, failure.details]);
  return headers;
}

/** The error that trailers tell of; undefined for status 0. Trailers without a status are an error,
 * too. */
export function errorOfTrailers(headers: HeaderList, peer: string): StorageError | undefined {
  const values = new Map(headers);
  const text = values.get('grpc-status');
  if (text === undefined || !/^[0-9]{1,2}$/.test(text)) {
    return new StorageError('PROTOCOL_ERROR', `${peer} ended the stream without a gRPC status`);
  }
  if (text === '0') return undefined;
  return errorOfFailure({
    status: Number(text),
    message: decodeGrpcMessage(values.get('grpc-message') ?? ''),
    code: values.get(CODE_KEY),
    details: values.get(DETAILS_KEY),
  });
}

export class ClientEndpoint extends Endpoint {
  #responded = false;
  readonly #onReady: () => void;

  constructor(
    options: EndpointOptions & {
      readonly authority: string;
      readonly secure: boolean;
      readonly handlers: MessageStreamHandlers;
      /** The peer's settings are known: messages may be sent. */
      readonly onReady: () => void;
    },
  ) {
    super(options);
    this.handlers = options.handlers;
    this.#onReady = options.onReady;
    const request = encodeHeaders([
      [':method', 'POST'],
      [':scheme', options.secure ? 'https' : 'http'],
      [':path', IO_PATH],
      [':authority', options.authority],
      ['te', 'trailers'],
      ['content-type', 'application/grpc'],
      ['user-agent', 'aurochs'],
    ]);
    this.write(Buffer.concat([PREFACE, firstFrames(0), headersFrame(request, false)]));
  }

  /** From here on these handlers are called; before, there are no messages. */
  attach(handlers: MessageStreamHandlers): void {
    this.handlers = handlers;
  }

  protected override onReady(): void {
    this.#onReady();
  }

  protected override get streamOpen(): boolean {
    return this.#responded;
  }

  protected override sendEnd(): void {
    this.sentEnd = true;
    this.write(END_STREAM_FRAME);
  }

  protected override sendError(error: StorageError): void {
    if (this.peerSpecialised && !this.sentEnd) {
      this.write(headersFrame(encodeHeaders(errorHeaders(error)), true));
    } else this.write(rstStreamFrame(STREAM_ID, H2_ERROR.CANCEL));
    this.goodbye();
  }

  protected override onEndOfData(): void {
    const error = new StorageError(
      'PROTOCOL_ERROR',
      `${this.peer} ended the stream without trailers`,
    );
    this.peerEnded(error, () => this.#leave());
  }

  protected override onHeaders(streamId: number, headers: HeaderList, endStream: boolean): void {
    if (streamId !== STREAM_ID) {
      throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, `HEADERS on stream ${streamId}`);
    }
    if (this.#responded && !endStream) {
      throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'headers inside the stream');
    }
    if (!this.#responded) {
      const status = new Map(headers).get(':status') ?? '';
      if (/^1[0-9][0-9]$/.test(status) && !endStream) return;
      const error = responseError(headers, this.peer);
      if (error !== undefined) {
        this.peerEnded(error, () => this.#leave());
        return;
      }
      this.#responded = true;
    }
    if (endStream) this.peerEnded(errorOfTrailers(headers, this.peer), () => this.#leave());
  }

  /** Our last words when the server has ended the stream. */
  #leave(): void {
    if (!this.sentEnd) this.write(rstStreamFrame(STREAM_ID, H2_ERROR.NO_ERROR));
    this.goodbye();
  }
}

function responseError(headers: HeaderList, peer: string): StorageError | undefined {
  const values = new Map(headers);
  const status = values.get(':status') ?? '';
  const type = values.get('content-type') ?? '';
  if (status === '200' && type.startsWith('application/grpc')) return undefined;
  // As the gRPC specification maps HTTP to gRPC: temporary answers are worth another try.
  const temporary = ['429', '502', '503', '504'].includes(status);
  return new StorageError(
    temporary ? 'UNAVAILABLE' : 'PROTOCOL_ERROR',
    `${peer} answers HTTP ${status.substring(0, 3)} and not gRPC`,
  );
}
