/** Stock grpc-js as client and as server of the data stream, for the tests of both directions. */
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
} from '@grpc/grpc-js';
import { later } from './harness.js';

export const IO = '/aurochs.v1.ReplicaData/Io';
const pass = (bytes: Buffer): Buffer => bytes;

export function stockClient(
  address: string,
  security: ChannelCredentials = credentials.createInsecure(),
  options: Record<string, string | number> = {},
): ClientDuplexStream<Buffer, Buffer> {
  const client = new Client(address, security, {
    'grpc.max_receive_message_length': -1,
    ...options,
  });
  later(() => client.close());
  return client.makeBidiStreamRequest(IO, pass, pass, new Metadata());
}

export async function stockServer(
  onCall: (call: ServerDuplexStream<Buffer, Buffer>) => void,
  options: { address?: string; security?: ServerCredentials } = {},
): Promise<string> {
  const server = new Server({ 'grpc.max_receive_message_length': -1 });
  const address = options.address ?? '127.0.0.1:0';
  server.addService(
    {
      Io: {
        path: IO,
        requestStream: true,
        responseStream: true,
        requestSerialize: pass,
        requestDeserialize: pass,
        responseSerialize: pass,
        responseDeserialize: pass,
      },
    },
    { Io: onCall },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(address, options.security ?? ServerCredentials.createInsecure(), (e, p) =>
      e === null ? resolve(p) : reject(e),
    );
  });
  later(() => server.forceShutdown());
  return address.startsWith('unix:') ? address : `127.0.0.1:${port}`;
}
