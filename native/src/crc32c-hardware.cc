// The processor's crc32c instruction, on three streams at once: one alone waits three cycles for
// each result.
//
// This file alone is compiled for processors that have the instruction (scripts/build-native.mjs),
// so it includes nothing whose inline functions other files could share.
#include "crc32c.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#endif

namespace aurochs {

#if defined(__x86_64__) || defined(__aarch64__)
namespace {

#if defined(__x86_64__)
inline uint32_t step8(uint32_t state, uint64_t word) {
  return static_cast<uint32_t>(_mm_crc32_u64(state, word));
}
inline uint32_t step1(uint32_t state, unsigned char byte) { return _mm_crc32_u8(state, byte); }
#else
inline uint32_t step8(uint32_t state, uint64_t word) { return __crc32cd(state, word); }
inline uint32_t step1(uint32_t state, unsigned char byte) { return __crc32cb(state, byte); }
#endif

inline uint64_t load8(const unsigned char* at) {
  uint64_t word;
  __builtin_memcpy(&word, at, sizeof word);
  return word;
}

// Moves a register over kBytes zero bytes with four look-ups. The map is linear over GF(2), so it
// is enough to know it for each byte of the register.
template <size_t kBytes>
struct Shift {
  uint32_t table[4][256];
  Shift() {
    for (uint32_t lane = 0; lane < 4; ++lane) {
      for (uint32_t byte = 0; byte < 256; ++byte) {
        table[lane][byte] = crc32c_shift(byte << (8 * lane), kBytes);
      }
    }
  }
  uint32_t operator()(uint32_t state) const {
    return table[0][state & 0xff] ^ table[1][(state >> 8) & 0xff] ^
           table[2][(state >> 16) & 0xff] ^ table[3][state >> 24];
  }
};

// A 4096-byte block is three streams of 1360 and 16 bytes; shorter data uses streams of 168.
constexpr size_t kLong = 1360;
constexpr size_t kShort = 168;
static_assert(kLong % 8 == 0 && kShort % 8 == 0 && 3 * kLong + 16 == kBlockBytes);

template <size_t kBytes>
uint32_t three_streams(uint32_t state, const unsigned char* data) {
  static const Shift<kBytes> shift;
  uint32_t second = 0;
  uint32_t third = 0;
  for (size_t at = 0; at < kBytes; at += 8) {
    state = step8(state, load8(data + at));
    second = step8(second, load8(data + kBytes + at));
    third = step8(third, load8(data + 2 * kBytes + at));
  }
  return shift(shift(state) ^ second) ^ third;
}

}  // namespace

uint32_t crc32c_hardware(uint32_t state, const unsigned char* data, size_t bytes) {
  for (; bytes >= 3 * kLong; bytes -= 3 * kLong, data += 3 * kLong) {
    state = three_streams<kLong>(state, data);
  }
  for (; bytes >= 3 * kShort; bytes -= 3 * kShort, data += 3 * kShort) {
    state = three_streams<kShort>(state, data);
  }
  for (; bytes >= 8; bytes -= 8, data += 8) state = step8(state, load8(data));
  for (; bytes > 0; --bytes, ++data) state = step1(state, *data);
  return state;
}

#else

uint32_t crc32c_hardware(uint32_t state, const unsigned char* data, size_t bytes) {
  return crc32c_table(state, data, bytes);
}

#endif

}  // namespace aurochs
