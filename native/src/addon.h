// State of the module in one Node environment (main thread or worker), and the bindings that use
// it.
#pragma once

#include <node_api.h>

#include <memory>
#include <unordered_map>

#include "crc32c.h"
#include "fd-channel.h"
#include "memory.h"
#include "reactor.h"

namespace aurochs {

class Addon {
 public:
  explicit Addon(napi_env env) : reactor(env, &chunks) {}
  Addon(const Addon&) = delete;
  Addon& operator=(const Addon&) = delete;

  // Null with an exception pending if the environment has none.
  static Addon* of(napi_env env);

  // Registers the hook that drains the ring before the environment goes away.
  bool watch_end(napi_env env);

  ChunkTable chunks;
  Reactor reactor;
  Crc32c crc32c;
  std::unordered_map<uint32_t, std::unique_ptr<FdChannel>> channels;
  uint32_t next_channel = 1;

 private:
  static void on_end(napi_async_cleanup_hook_handle handle, void* addon);
  void close_next();

  napi_async_cleanup_hook_handle end_ = nullptr;
};

// Each adds its functions to `exports`; false with an exception pending.
bool define_io(napi_env env, napi_value exports);
bool define_checksums(napi_env env, napi_value exports);
bool define_channels(napi_env env, napi_value exports);
bool define_devices(napi_env env, napi_value exports);

struct Function {
  const char* name;
  napi_callback call;
};
bool define_functions(napi_env env, napi_value exports, std::initializer_list<Function> functions);

}  // namespace aurochs
