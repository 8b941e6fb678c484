/**
 * A sum over the seals of all records of one scope, stored with every batch that changes one of
 * them.
 *
 * It proves at open that no record is missing, old or surplus: LevelDB drops damaged parts of its
 * log silently, and a record that is not there would read as zeroes. Scope 0 is the disk's own
 * records, others are replica numbers.
 */
import { readU64, writeU64 } from './extent-record.js';
import { sumKey } from './keys.js';
import { checkSeal, seal } from './sealed-value.js';

const SUM_FORMAT = 1;
const SUM_BODY_BYTES = 24;

export class StateSum {
  /** of the seals, modulo 2^32 */
  #sum: number;
  #records: number;

  constructor(sum = 0, records = 0) {
    this.#sum = sum;
    this.#records = records;
  }

  get records(): number {
    return this.#records;
  }

  add(recordSeal: number): void {
    this.#sum = (this.#sum + recordSeal) >>> 0;
    this.#records += 1;
  }

  remove(recordSeal: number): void {
    this.#sum = (this.#sum - recordSeal) >>> 0;
    this.#records -= 1;
  }

  equals(other: StateSum): boolean {
    return this.#sum === other.#sum && this.#records === other.#records;
  }

  encode(scope: number): { key: Buffer; value: Buffer } {
    const key = sumKey(scope);
    const body = Buffer.alloc(SUM_BODY_BYTES);
    body[0] = SUM_FORMAT;
    body.writeUInt32LE(this.#sum, 4);
    writeU64(body, 8, this.#records);
    return { key, value: seal(key, body).value };
  }

  /** Undefined: corrupt. */
  static decode(key: Buffer, value: Buffer): StateSum | undefined {
    if (checkSeal(key, value) === undefined || value[0] !== SUM_FORMAT) return undefined;
    if (value.length < SUM_BODY_BYTES) return undefined;
    return new StateSum(value.readUInt32LE(4), readU64(value, 8));
  }
}
