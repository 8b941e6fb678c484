/** What an NBD client is told about an error of the volume. */
import { AssertionError } from 'node:assert';
import { toStorageError } from '../../common/errors.js';
import { NBD_ERROR } from './constants.js';

export interface ErrorAnswer {
  /** NBD error number */
  readonly number: number;
  /** Text for structured replies: the code, never data. */
  readonly text: string;
}

/** A failed assertion of the volume is thrown again: it ends the process, nothing more may be
 *  acknowledged.
 *  @param pastEnd what OUT_OF_RANGE means for this command: ENOSPC for writes, else EINVAL */
export function errorAnswer(error: unknown, pastEnd: number): ErrorAnswer {
  if (error instanceof AssertionError) throw error;
  const known = toStorageError(error, 'NBD request');
  const number = known.code === 'OUT_OF_RANGE' ? pastEnd : NBD_ERROR[known.errno];
  return { number, text: known.code };
}
