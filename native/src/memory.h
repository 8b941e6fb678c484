// Page-aligned memory that JavaScript sees as external ArrayBuffers and the kernel reads and
// writes.
//
// Invariant: a chunk stays mapped while JavaScript can reach its ArrayBuffer or an operation has it
// pinned, whichever ends later. Everything here runs on the environment's own thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "unique-fd.h"

namespace aurochs {

class ChunkTable;

struct Chunk {
  MmapRegion region;
  uint32_t id = 0;
  uint32_t pins = 0;
  bool reachable = true;         // from JavaScript
  ChunkTable* table = nullptr;   // null once the table is gone
};

class ChunkTable {
 public:
  static constexpr uint32_t kChunksMax = 1u << 20;

  ChunkTable() = default;
  ChunkTable(const ChunkTable&) = delete;
  ChunkTable& operator=(const ChunkTable&) = delete;
  ~ChunkTable();

  // A mapped chunk of zeroes, owned by the table and its ArrayBuffer; null with `status` a negative
  // errno.
  Chunk* add(size_t bytes, int* status);
  // Null unless [offset, offset + length) lies in a live chunk of that id.
  Chunk* find(uint32_t id, uint64_t offset, uint64_t length) const;
  static void pin(Chunk* chunk) { chunk->pins += 1; }
  static void unpin(Chunk* chunk);
  // The ArrayBuffer is gone.
  static void drop(Chunk* chunk);

 private:
  static void free_if_unused(Chunk* chunk);

  std::vector<Chunk*> chunks_;      // by id; null: free
  std::vector<uint32_t> free_ids_;
};

}  // namespace aurochs
