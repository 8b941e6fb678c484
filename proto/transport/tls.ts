/** skeleton */

/** Both sides prove who they are: there is no one-sided TLS. Each text is PEM or the path of a PEM file. */
export interface TransportTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  /** Name that the other side's certificate must carry as a subject alternative name.
   *  Default: a client expects the host it connects to, a listener accepts every certificate of the authority. */
  readonly peerName?: string | undefined;
}
