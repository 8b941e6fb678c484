/** placeholder */
import { Command } from 'commander';
export function buildCompareCommand(_run: (code: number) => void): Command {
  return new Command('aurochs replica compare').exitOverride();
}
