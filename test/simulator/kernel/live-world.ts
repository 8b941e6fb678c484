/** A small world that runs by itself, for tests that await things outside of it. */
import { Random } from './random.js';
import { Scheduler, type SchedulerOptions } from './scheduler.js';
import { SimHost, type SimProcess } from './sim-process.js';

export class LiveWorld {
  readonly scheduler: Scheduler;
  readonly random: Random;
  #running = true;

  constructor(seed = 1, options: SchedulerOptions = {}) {
    this.scheduler = new Scheduler(options);
    this.random = new Random(seed);
    void this.#live();
  }

  start(host: string, process = 'process'): SimProcess {
    return new SimHost(this.scheduler, host, this.random).start(process);
  }

  /** Resolves when nothing is left to do. */
  async idle(): Promise<void> {
    do await new Promise(setImmediate);
    while (this.scheduler.pending > 0);
    await new Promise(setImmediate);
  }

  /** Ends the world; until then it goes on with whatever is asked of it. */
  end(): void {
    this.#running = false;
    this.scheduler.stop();
  }

  async #live(): Promise<void> {
    while (this.#running) await this.scheduler.run();
  }
}
