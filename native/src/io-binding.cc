// Bindings of the reactor and of aligned memory, for native/io-channel.ts and
// native/buffer-pool.ts.
#include <sys/mman.h>

#include <cerrno>

#include "addon.h"
#include "napi-call.h"

namespace aurochs {
namespace {

// attach(callback): {memory, slots, completionsAt, submissionsAt}, or a negative errno. Once per
// environment.
napi_value attach(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  napi_value callback = arguments.value();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  Reactor& reactor = addon->reactor;
  if (reactor.started()) return to_js(env, -EALREADY);
  const int status = reactor.start();
  if (status != 0) return to_js(env, status);
  if (!reactor.set_callback(callback)) return nullptr;
  napi_value memory = nullptr;
  // No finalizer: the memory is the reactor's and lives as long as the environment.
  unsigned char* base = reactor.shared_memory();
  if (!ok(env, napi_create_external_arraybuffer(env, base, reactor.shared_bytes(), nullptr, nullptr,
                                                &memory))) {
    return nullptr;
  }
  const auto at = [env, base](void* part) {
    return to_js(env, static_cast<double>(static_cast<unsigned char*>(part) - base));
  };
  return make_object(env, {{"memory", memory},
                           {"slots", to_js(env, kSlots)},
                           {"completionsAt", at(reactor.completions())},
                           {"submissionsAt", at(reactor.submissions())}});
}

// openRing(): 0 or a negative errno; attach first.
napi_value open_ring(napi_env env, napi_callback_info) {
  Addon* addon = Addon::of(env);
  if (addon == nullptr) return nullptr;
  return to_js(env, addon->reactor.started() ? addon->reactor.open_ring() : -EBADF);
}

// submit(count): undefined; the first `count` entries of the submission list are taken.
napi_value submit(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  const double count = arguments.number();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  const uint32_t room = kSlots - addon->reactor.in_flight();
  if (!addon->reactor.started() || count < 0 || count > room) {
    return throw_range(env, "submit: more operations than free slots");
  }
  addon->reactor.submit(static_cast<uint32_t>(count));
  return nullptr;
}

// ringFlags(): IORING_SETUP_* flags granted.
napi_value ring_flags(napi_env env, napi_callback_info) {
  Addon* addon = Addon::of(env);
  return addon == nullptr ? nullptr : to_js(env, addon->reactor.ring_flags());
}

// createChunk(bytes): {id, memory}, or a negative errno.
napi_value create_chunk(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  const double bytes = arguments.number();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  if (!(bytes > 0 && bytes <= 1u << 30)) return throw_range(env, "createChunk: 1 byte to 1 GiB");
  int status = 0;
  Chunk* chunk = addon->chunks.add(static_cast<size_t>(bytes), &status);
  if (chunk == nullptr) return to_js(env, status);
  const auto dropped = [](napi_env, void*, void* given) {
    ChunkTable::drop(static_cast<Chunk*>(given));
  };
  napi_value memory = nullptr;
  if (!ok(env, napi_create_external_arraybuffer(env, chunk->region.data(), chunk->region.size(),
                                                dropped, chunk, &memory))) {
    ChunkTable::drop(chunk);
    return nullptr;
  }
  return make_object(env, {{"id", to_js(env, chunk->id)}, {"memory", memory}});
}

// forgetPages(id): 0 or a negative errno. The chunk reads as zeroes and takes no memory until
// touched again. Refused with -EBUSY while an operation uses the chunk.
napi_value forget_pages(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  const double id = arguments.number();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  Chunk* chunk = addon->chunks.find(static_cast<uint32_t>(id), 0, 0);
  if (chunk == nullptr) return to_js(env, -EINVAL);
  if (chunk->pins > 0) return to_js(env, -EBUSY);
  const int status = ::madvise(chunk->region.data(), chunk->region.size(), MADV_DONTNEED);
  return to_js(env, status == 0 ? 0 : -errno);
}

}  // namespace

bool define_io(napi_env env, napi_value exports) {
  return define_functions(env, exports,
                          {{"attach", attach},
                           {"openRing", open_ring},
                           {"ringFlags", ring_flags},
                           {"submit", submit},
                           {"createChunk", create_chunk},
                           {"forgetPages", forget_pages}});
}

}  // namespace aurochs
