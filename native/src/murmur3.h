// MurmurHash3_x64_128 (Austin Appleby, public domain), with seed 0: 128 bits that tell different
// content apart. Not for use against somebody who looks for collisions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace aurochs {

inline constexpr size_t kHashBytes = 16;

struct Hash128 {
  uint64_t low;
  uint64_t high;
};

Hash128 murmur3_128(const unsigned char* data, size_t bytes);

}  // namespace aurochs
