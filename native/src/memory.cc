#include "memory.h"

namespace aurochs {

ChunkTable::~ChunkTable() {
  for (Chunk* chunk : chunks_) {
    if (chunk != nullptr) chunk->table = nullptr;
  }
}

Chunk* ChunkTable::add(size_t bytes, int* status) {
  if (free_ids_.empty() && chunks_.size() >= kChunksMax) {
    *status = -ENOMEM;
    return nullptr;
  }
  auto chunk = std::make_unique<Chunk>();
  *status = chunk->region.map(bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (*status != 0) return nullptr;
  chunk->table = this;
  if (free_ids_.empty()) {
    chunk->id = static_cast<uint32_t>(chunks_.size());
    chunks_.push_back(chunk.get());
  } else {
    chunk->id = free_ids_.back();
    free_ids_.pop_back();
    chunks_[chunk->id] = chunk.get();
  }
  return chunk.release();
}

Chunk* ChunkTable::find(uint32_t id, uint64_t offset, uint64_t length) const {
  if (id >= chunks_.size() || chunks_[id] == nullptr) return nullptr;
  const uint64_t size = chunks_[id]->region.size();
  return offset <= size && length <= size - offset ? chunks_[id] : nullptr;
}

void ChunkTable::unpin(Chunk* chunk) {
  chunk->pins -= 1;
  free_if_unused(chunk);
}

void ChunkTable::drop(Chunk* chunk) {
  chunk->reachable = false;
  free_if_unused(chunk);
}

void ChunkTable::free_if_unused(Chunk* chunk) {
  if (chunk->reachable || chunk->pins > 0) return;
  const std::unique_ptr<Chunk> owned(chunk);
  if (owned->table == nullptr) return;
  owned->table->chunks_[owned->id] = nullptr;
  owned->table->free_ids_.push_back(owned->id);
}

}  // namespace aurochs
