// CRC-32C (Castagnoli, reflected, polynomial 0x82f63b78), as in RFC 3720 appendix B.4.
#pragma once

#include <cstddef>
#include <cstdint>

namespace aurochs {

inline constexpr size_t kBlockBytes = 4096;

// Takes and returns the running register (not inverted).
using Crc32cUpdate = uint32_t (*)(uint32_t state, const unsigned char* data, size_t bytes);

uint32_t crc32c_table(uint32_t state, const unsigned char* data, size_t bytes);
// Only where crc32c_hardware_name() is not null.
uint32_t crc32c_hardware(uint32_t state, const unsigned char* data, size_t bytes);

// "sse4.2" or "armv8" if this processor has the instruction, else null.
const char* crc32c_hardware_name();
// Moves a register over `bytes` zero bytes; for building tables, not fast.
uint32_t crc32c_shift(uint32_t state, size_t bytes);

// The best that this processor has.
class Crc32c {
 public:
  Crc32c();
  const char* name() const { return name_; }
  uint32_t operator()(const unsigned char* data, size_t bytes) const {
    return ~update_(0xffffffffu, data, bytes);
  }

 private:
  Crc32cUpdate update_;
  const char* name_;
};

}  // namespace aurochs
