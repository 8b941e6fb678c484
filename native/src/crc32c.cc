#include "crc32c.h"

#include <array>
#include <bit>
#include <cstring>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace aurochs {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kPolynomial = 0x82f63b78u;

constexpr uint32_t step_zero_bit(uint32_t state) {
  return (state >> 1) ^ ((state & 1u) != 0 ? kPolynomial : 0u);
}

// Slicing by eight: table k moves a byte over k further zero bytes.
constexpr std::array<std::array<uint32_t, 256>, 8> make_tables() {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t state = byte;
    for (int bit = 0; bit < 8; ++bit) state = step_zero_bit(state);
    tables[0][byte] = state;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

constexpr auto kTables = make_tables();

}  // namespace

uint32_t crc32c_table(uint32_t state, const unsigned char* data, size_t bytes) {
  while (bytes >= 8) {
    uint64_t word;
    std::memcpy(&word, data, sizeof word);
    word ^= state;
    state = 0;
    for (unsigned k = 0; k < 8; ++k) state ^= kTables[7 - k][(word >> (8 * k)) & 0xff];
    data += 8;
    bytes -= 8;
  }
  while (bytes-- > 0) state = (state >> 8) ^ kTables[0][(state ^ *data++) & 0xff];
  return state;
}

uint32_t crc32c_shift(uint32_t state, size_t bytes) {
  while (bytes-- > 0) state = (state >> 8) ^ kTables[0][state & 0xff];
  return state;
}

const char* crc32c_hardware_name() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("sse4.2") ? "sse4.2" : nullptr;
#elif defined(__aarch64__)
  return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0 ? "armv8" : nullptr;
#else
  return nullptr;
#endif
}

Crc32c::Crc32c() : update_(crc32c_table), name_("table") {
  if (const char* hardware = crc32c_hardware_name(); hardware != nullptr) {
    update_ = crc32c_hardware;
    name_ = hardware;
  }
}

}  // namespace aurochs
