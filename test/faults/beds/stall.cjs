// Loaded into a daemon with NODE_OPTIONS=--require: SIGUSR2 blocks its event loop for as many
// milliseconds as STALL_MS says, as a long collection or a synchronous call would (scenario 19).
// The process runs all the while, unlike one that was stopped.
'use strict';

process.on('SIGUSR2', () => {
  const endMs = performance.now() + Number(process.env.STALL_MS);
  while (performance.now() < endMs);
});
