/** What Ctrl-C means while a command only waits: the work goes on without it. */

/** 128 + SIGINT, as shells have it. */
const INTERRUPTED_EXIT = 130;

/** Runs `wait`; on SIGINT says `text` and ends this process. */
export async function interruptible<T>(text: string, wait: () => Promise<T>): Promise<T> {
  const onInterrupt = (): void => {
    process.stderr.write(`\n${text}\n`);
    process.exit(INTERRUPTED_EXIT);
  };
  process.once('SIGINT', onInterrupt);
  try {
    return await wait();
  } finally {
    process.removeListener('SIGINT', onInterrupt);
  }
}
