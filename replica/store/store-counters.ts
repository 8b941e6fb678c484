/** Plain counters of a store, exported as metrics by the daemon. They only grow; a reader takes
 *  differences. */
export class StoreCounters {
  reads = 0;
  writes = 0;
  replaces = 0;
  trims = 0;
  hashes = 0;
  bytesRead = 0;
  bytesWritten = 0;
  bytesTrimmed = 0;
  /** present blocks that replaces brought */
  bytesReplaced = 0;
  bytesHashed = 0;
  /** flush calls answered, and device flushes that answered them */
  flushes = 0;
  deviceFlushes = 0;
  deviceWrites = 0;
  deviceReads = 0;
  /** regions marked dirty, and cleaned */
  dirtyMarks = 0;
  cleans = 0;
  cacheHits = 0;
  cacheMisses = 0;
  cacheWriteBacks = 0;
  /** metadata batches, and those of them that were synced */
  kvBatches = 0;
  kvSyncs = 0;
  kvGets = 0;
  corruptBlocks = 0;
  /** extents whose checksums were recomputed after a restart */
  reprovenExtents = 0;
  extentsAllocated = 0;
  extentsFreed = 0;
  noSpace = 0;
}
