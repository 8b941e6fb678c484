/** Prints as JSON what the native module can do here. Run as a process of its own, so that a module
 *  that does not load, or that the kernel kills, is a finding of `aurochs doctor` and not the end
 *  of it. */

interface Probe {
  readonly loaded: boolean;
  readonly error?: string;
  readonly capabilities?: unknown;
}

async function probe(): Promise<Probe> {
  try {
    const { nativeCapabilities } = await import('./index.js');
    return { loaded: true, capabilities: nativeCapabilities() };
  } catch (error) {
    return { loaded: false, error: error instanceof Error ? error.message : String(error) };
  }
}

process.stdout.write(`${JSON.stringify(await probe())}\n`);
