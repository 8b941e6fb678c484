// Bindings of crc32c and of the hash of blocks. Sizes are checked here: a wrong one is a
// RangeError, never a read past the end.
#include <cstring>

#include "addon.h"
#include "murmur3.h"
#include "napi-call.h"

namespace aurochs {
namespace {

bool whole_blocks(double length) {
  return length >= 0 && length <= 9007199254740991.0 &&
         static_cast<uint64_t>(length) % kBlockBytes == 0;
}

void store_le32(unsigned char* at, uint32_t value) { std::memcpy(at, &value, sizeof value); }

uint32_t load_le32(const unsigned char* at) {
  uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

napi_value crc32c_of(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  const Bytes source = arguments.bytes();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  return to_js(env, addon->crc32c(source.data, source.size));
}

// The portable implementation, whatever the processor has; the tests compare the two.
napi_value crc32c_portable(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  const Bytes source = arguments.bytes();
  if (!arguments.valid()) return nullptr;
  return to_js(env, ~crc32c_table(0xffffffffu, source.data, source.size));
}

// (src, srcOffset, length, out, outOffset)
napi_value crc32c_blocks(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 5);
  const Bytes source = arguments.bytes();
  const double source_at = arguments.number();
  const double length = arguments.number();
  const Bytes out = arguments.bytes();
  const double out_at = arguments.number();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  const unsigned char* from = source.range(source_at, length);
  unsigned char* to = out.range(out_at, length / kBlockBytes * 4);
  if (!whole_blocks(length) || from == nullptr || to == nullptr) {
    return throw_range(env, "crc32cBlocks: range outside its buffer, or not whole blocks");
  }
  const size_t blocks = static_cast<size_t>(length) / kBlockBytes;
  for (size_t i = 0; i < blocks; ++i) {
    store_le32(to + i * 4, addon->crc32c(from + i * kBlockBytes, kBlockBytes));
  }
  return nullptr;
}

// (src, srcOffset, length, expected, expectedOffset): index of the first bad block, or -1
napi_value crc32c_verify(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 5);
  const Bytes source = arguments.bytes();
  const double source_at = arguments.number();
  const double length = arguments.number();
  const Bytes expected = arguments.bytes();
  const double expected_at = arguments.number();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  const unsigned char* from = source.range(source_at, length);
  const unsigned char* want = expected.range(expected_at, length / kBlockBytes * 4);
  if (!whole_blocks(length) || from == nullptr || want == nullptr) {
    return throw_range(env, "crc32cVerify: range outside its buffer, or not whole blocks");
  }
  const size_t blocks = static_cast<size_t>(length) / kBlockBytes;
  for (size_t i = 0; i < blocks; ++i) {
    if (addon->crc32c(from + i * kBlockBytes, kBlockBytes) != load_le32(want + i * 4)) {
      return to_js(env, static_cast<double>(i));
    }
  }
  return to_js(env, -1);
}

// (src, srcOffset, dst, dstOffset, length, out, outOffset). The checksum is that of the copy, taken
// while the block is still in the processor's first cache.
napi_value copy_and_checksum(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  const Bytes source = arguments.bytes();
  const double source_at = arguments.number();
  const Bytes target = arguments.bytes();
  const double target_at = arguments.number();
  const double length = arguments.number();
  const Bytes out = arguments.bytes();
  const double out_at = arguments.number();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  const unsigned char* from = source.range(source_at, length);
  unsigned char* to = target.range(target_at, length);
  unsigned char* sums = out.range(out_at, length / kBlockBytes * 4);
  if (!whole_blocks(length) || from == nullptr || to == nullptr || sums == nullptr) {
    return throw_range(env, "copyAndChecksum: range outside its buffer, or not whole blocks");
  }
  const size_t blocks = static_cast<size_t>(length) / kBlockBytes;
  for (size_t i = 0; i < blocks; ++i) {
    unsigned char* block = to + i * kBlockBytes;
    std::memmove(block, from + i * kBlockBytes, kBlockBytes);
    store_le32(sums + i * 4, addon->crc32c(block, kBlockBytes));
  }
  return nullptr;
}

// (src, srcOffset, length, out, outOffset)
napi_value hash_blocks(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 5);
  const Bytes source = arguments.bytes();
  const double source_at = arguments.number();
  const double length = arguments.number();
  const Bytes out = arguments.bytes();
  const double out_at = arguments.number();
  if (!arguments.valid()) return nullptr;
  const unsigned char* from = source.range(source_at, length);
  unsigned char* to = out.range(out_at, length / kBlockBytes * kHashBytes);
  if (!whole_blocks(length) || from == nullptr || to == nullptr) {
    return throw_range(env, "hashBlocks: range outside its buffer, or not whole blocks");
  }
  const size_t blocks = static_cast<size_t>(length) / kBlockBytes;
  for (size_t i = 0; i < blocks; ++i) {
    const Hash128 hash = murmur3_128(from + i * kBlockBytes, kBlockBytes);
    std::memcpy(to + i * kHashBytes, &hash, kHashBytes);
  }
  return nullptr;
}

// (bytes, out): 16 bytes; the tests compare it with published values.
napi_value murmur3_of(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 2);
  const Bytes source = arguments.bytes();
  const Bytes out = arguments.bytes();
  if (!arguments.valid()) return nullptr;
  unsigned char* to = out.range(0, kHashBytes);
  if (to == nullptr) return throw_range(env, "murmur3: 16 bytes are needed");
  const Hash128 hash = murmur3_128(source.data, source.size);
  std::memcpy(to, &hash, kHashBytes);
  return nullptr;
}

napi_value crc32c_name(napi_env env, napi_callback_info) {
  Addon* addon = Addon::of(env);
  return addon == nullptr ? nullptr : to_js(env, addon->crc32c.name());
}

}  // namespace

bool define_checksums(napi_env env, napi_value exports) {
  return define_functions(env, exports,
                          {{"crc32c", crc32c_of},
                           {"crc32cPortable", crc32c_portable},
                           {"crc32cBlocks", crc32c_blocks},
                           {"crc32cVerify", crc32c_verify},
                           {"copyAndChecksum", copy_and_checksum},
                           {"hashBlocks", hash_blocks},
                           {"murmur3", murmur3_of},
                           {"crc32cName", crc32c_name}});
}

}  // namespace aurochs
