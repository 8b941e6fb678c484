#include "murmur3.h"

#include <bit>
#include <cstring>

namespace aurochs {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kFirst = 0x87c37b91114253d5u;
constexpr uint64_t kSecond = 0x4cf5ad432745937fu;

uint64_t load(const unsigned char* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

uint64_t mix_low(uint64_t word) { return std::rotl(word * kFirst, 31) * kSecond; }
uint64_t mix_high(uint64_t word) { return std::rotl(word * kSecond, 33) * kFirst; }

uint64_t finish(uint64_t word) {
  word = (word ^ (word >> 33)) * 0xff51afd7ed558ccdu;
  word = (word ^ (word >> 33)) * 0xc4ceb9fe1a85ec53u;
  return word ^ (word >> 33);
}

}  // namespace

Hash128 murmur3_128(const unsigned char* data, size_t bytes) {
  uint64_t low = 0;
  uint64_t high = 0;
  size_t left = bytes;
  for (; left >= kHashBytes; left -= kHashBytes, data += kHashBytes) {
    low ^= mix_low(load(data));
    low = (std::rotl(low, 27) + high) * 5 + 0x52dce729;
    high ^= mix_high(load(data + 8));
    high = (std::rotl(high, 31) + low) * 5 + 0x38495ab5;
  }
  if (left > 0) {
    unsigned char rest[kHashBytes] = {};
    std::memcpy(rest, data, left);
    if (left > 8) high ^= mix_high(load(rest + 8));
    low ^= mix_low(load(rest));
  }
  low ^= bytes;
  high ^= bytes;
  low += high;
  high += low;
  low = finish(low);
  high = finish(high);
  low += high;
  high += low;
  return {low, high};
}

}  // namespace aurochs
