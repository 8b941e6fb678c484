/** What keeps operations off ranges in which the members may still differ (P5). */
export interface EqualGate {
  /** False: every range is equal, nothing need be asked. On the hot path. */
  readonly active: boolean;
  /** Undefined: equal. Else resolves once [offset, offset + length) is equal and flushed on all
   *  members. @throws StorageError when nothing is waited for any more */
  pending(offsetBytes: number, lengthBytes: number): Promise<void> | undefined;
  touchesRegion(region: number): boolean;
}
