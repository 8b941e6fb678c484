/** Prints what the native module can do here as one line of JSON; `aurochs doctor` runs it in a
 *  process of its own, so that a module that does not load, or crashes, is a finding and not the
 *  end of the doctor. */
import process from 'node:process';

try {
  const { nativeCapabilities } = await import('./index.js');
  process.stdout.write(`${JSON.stringify({ loaded: true, capabilities: nativeCapabilities() })}\n`);
} catch (error) {
  const text = error instanceof Error ? error.message : String(error);
  process.stdout.write(`${JSON.stringify({ loaded: false, error: text })}\n`);
}
