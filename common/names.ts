/** Names become paths, labels and argv: they are checked here before anything else sees them
 *  (correctness 3.2). */
import { StorageError } from './errors.js';

const NAME = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

export function isName(text: string): boolean {
  return NAME.test(text);
}

/** @throws StorageError INVALID_ARGUMENT; the offending text is cut and escaped in the message */
export function checkName(text: string, what: string): string {
  if (!isName(text)) {
    const shown = JSON.stringify(text.slice(0, 70));
    throw new StorageError('INVALID_ARGUMENT', `${what} ${shown} is not a valid name`, {
      hint: 'use 1 to 63 lower-case letters, digits and inner hyphens',
    });
  }
  return text;
}
