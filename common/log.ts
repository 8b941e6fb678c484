/** Structured logs: pino, JSON lines on stderr. Payload bytes and secrets never go in (correctness
 *  3.2, 3.4). */
import { type DestinationStream, destination, type Logger, pino } from 'pino';

export type { Logger };

/** One logger per process; `component` is engine, replica, cli … Level from AUROCHS_LOG (default
 *  info). */
export function createLogger(component: string, stream?: DestinationStream): Logger {
  const target = stream ?? destination({ fd: 2, sync: true });
  // A full disk or a closed pipe behind the log must not disturb the data path (scenario 78).
  if ('on' in target && typeof target.on === 'function') target.on('error', () => undefined);
  return pino(
    { base: { component, pid: process.pid }, level: process.env['AUROCHS_LOG'] ?? 'info' },
    target,
  );
}
