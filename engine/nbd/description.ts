/**
 * The description of an export, which also tells a device whether it may go on after a reconnect.
 *
 * The era of a volume grows when a start had to accept the loss of writes that were acknowledged
 * and not flushed (power was lost on every copy), or a person opened it with fewer copies
 * (salvage). A block device that outlives the engine has such writes behind it, and its next flush
 * would claim that they are there (D1): it must not go on in another era.
 */

/** For people and for `eraOf`. */
export function describeExport(volume: string, era: number): string {
  return `aurochs volume ${volume}, era ${era}`;
}

/** The era that a description tells; undefined: it is none of ours. */
export function eraOf(description: string): number | undefined {
  const match = /^aurochs volume [a-z0-9-]{1,63}, era ([0-9]{1,15})$/.exec(description);
  return match === null ? undefined : Number(match[1]);
}
