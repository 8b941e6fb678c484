/**
 * HPACK's Huffman code (RFC 7541, appendix B). The code is canonical: codes of one length follow
 * each other in the order of the symbols, shorter before longer. So the lengths are the whole
 * table.
 */
import assert from 'node:assert';
import { StorageError } from '../../common/errors.js';

/** Length of the code of symbols 0 to 255 and of the end mark, 256; as runs of [length, count]. */
const LENGTH_RUNS: ReadonlyArray<readonly [number, number]> = [
  ...runs('13 23 28*7 24 30 28*2 30 28*8 30 28*9'),
  ...runs('6 10*2 12 13 6 8 11 10*2 8 11 8 6*3 5*3 6*7 7 8 15 6 12 10'),
  ...runs('13 6 7*22 8 7 8 13 19 13 14 6'),
  ...runs('15 5 6 5 6 5 6*3 5 7*2 6*3 5 6 7 6 5*2 6 7*5 15 11 14 13 28'),
  ...runs('20 22 20*2 22*3 23 22 23*5 24 23 24*2 22 23 24 23*4 21 22 23 22 23*2 24'),
  ...runs('22 21 20 22*2 23*2 21 23 22*2 24 21 22 23*2 21*2 22 21 23 22 23*2 20 22*3 23 22*2 23'),
  ...runs('26*2 20 19 22 23 22 25 26*3 27*2 26 24 25 19 21 26 27*2 26 27 24 21*2 26*2 28 27*3'),
  ...runs('20 24 20 21 22 21*2 23 22*2 25*2 24*2 26 23 26 27 26*2 27*5 28 27*5 26 30'),
];

function runs(text: string): Array<readonly [number, number]> {
  return text.split(' ').map((item) => {
    const [length, count] = item.split('*');
    return [Number(length), Number(count ?? 1)] as const;
  });
}

const END_MARK = 256;
const LENGTH_MAX = 30;

interface CodesOfLength {
  /** first code of this length, and how many there are */
  first: number;
  count: number;
  /** where their symbols begin in SYMBOLS */
  index: number;
}

const { BY_LENGTH, SYMBOLS } = buildTables();

function buildTables(): { BY_LENGTH: CodesOfLength[]; SYMBOLS: number[] } {
  const lengths = LENGTH_RUNS.flatMap(([length, count]) => Array<number>(count).fill(length));
  assert(lengths.length === END_MARK + 1);
  const byLength: CodesOfLength[] = [];
  const symbols: number[] = [];
  let code = 0;
  for (let length = 0; length <= LENGTH_MAX; length++) {
    code *= 2;
    const index = symbols.length;
    for (const [symbol, itsLength] of lengths.entries()) {
      if (itsLength === length) symbols.push(symbol);
    }
    const count = symbols.length - index;
    byLength.push({ first: code, count, index });
    code += count;
  }
  // A complete code uses up every bit pattern: a slip in the table would show here.
  assert(code === 2 ** LENGTH_MAX, 'the Huffman table is not complete');
  return { BY_LENGTH: byLength, SYMBOLS: symbols };
}

/** The text (latin1) that the bytes stand for. Once per header: bit by bit is fast enough.
 *  @throws StorageError CORRUPT_MESSAGE: the end mark inside, or padding that is not up to seven
 *    ones */
export function decodeHuffman(bytes: Buffer): string {
  const text: number[] = [];
  let code = 0;
  let length = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      code = code * 2 + ((byte >>> bit) & 1);
      length += 1;
      const codes = BY_LENGTH[length];
      if (codes === undefined) throw corrupt();
      if (code - codes.first >= codes.count || code < codes.first) continue;
      const symbol = SYMBOLS[codes.index + code - codes.first];
      if (symbol === undefined || symbol === END_MARK) throw corrupt();
      text.push(symbol);
      code = 0;
      length = 0;
    }
  }
  if (length > 7 || code !== 2 ** length - 1) throw corrupt();
  return Buffer.from(text).toString('latin1');
}

function corrupt(): StorageError {
  return new StorageError('CORRUPT_MESSAGE', 'header block: Huffman code does not parse');
}
