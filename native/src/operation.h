// One block-device operation: as JavaScript describes it, and as it is while it runs.
#pragma once

#include <cstdint>

namespace aurochs {

struct Chunk;

// Slots in flight at once, per environment; native/io-channel.ts reads it from attach().
inline constexpr uint32_t kSlots = 1024;

// Values are shared with native/io-channel.ts.
enum class Opcode : uint8_t {
  kRead = 1,
  kWrite = 2,
  kFdatasync = 3,
  kPunchHole = 4,
  kZeroRange = 5,
  kBlockDiscard = 6,
  kBlockZeroOut = 7,
};
// Added to the opcode: run on the thread pool even if there is a ring.
inline constexpr uint32_t kOnThreads = 0x100;

// 32 bytes, written by JavaScript through an Int32Array and a Float64Array over the same memory.
struct SlotDescriptor {
  uint32_t opcode;
  int32_t fd;
  double offset_bytes;
  double length_bytes;
  uint32_t chunk_id;
  uint32_t chunk_offset;
};
static_assert(sizeof(SlotDescriptor) == 32);

// 8 bytes, read by JavaScript through an Int32Array. `result` is 0 (all of it done) or a negative
// errno.
struct Completion {
  uint32_t slot;
  int32_t result;
};
static_assert(sizeof(Completion) == 8);

// A copy of the descriptor taken at submission, so that nothing JavaScript does later can redirect
// it. Invariant: done_bytes <= length_bytes; `chunk` is pinned from submission until completion.
struct Operation {
  Opcode opcode = Opcode::kRead;
  int fd = -1;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  uint64_t done_bytes = 0;
  unsigned char* memory = nullptr;
  Chunk* chunk = nullptr;
  uint32_t slot = 0;
  uint32_t retries = 0;
  int32_t result = 0;
  Operation* next = nullptr;  // in the thread pool's lists
};

enum class Step { kFinished, kAgain };

// Takes in what the kernel answered for the rest of the operation: a byte count, or a negative
// errno. kAgain: a short transfer or an interruption; the rest is to be sent again. kFinished:
// `result` is set. A failed fdatasync is never sent again (rules D1, D3).
Step absorb(Operation& operation, int64_t answer);

// Runs the operation to its end on the calling thread; `result` is set.
void run_blocking(Operation& operation);

// Descriptor -> fallocate(2) mode.
int fallocate_mode(Opcode opcode);

// Most bytes that one request to the kernel carries (read(2) itself stops at 0x7ffff000).
inline constexpr uint64_t kTransferBytesMax = 1u << 30;

}  // namespace aurochs
