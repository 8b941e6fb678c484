#include "addon.h"

#include "napi-call.h"

namespace aurochs {

Addon* Addon::of(napi_env env) {
  void* data = nullptr;
  return ok(env, napi_get_instance_data(env, &data)) ? static_cast<Addon*>(data) : nullptr;
}

bool Addon::watch_end(napi_env env) {
  return ok(env, napi_add_async_cleanup_hook(env, &Addon::on_end, this, &end_));
}

// Node knows nothing of the ring: without this it would free memory that the kernel still writes
// to.
void Addon::on_end(napi_async_cleanup_hook_handle, void* addon) {
  auto* self = static_cast<Addon*>(addon);
  self->reactor.drain();
  self->close_next();
}

// Closes one handle after the other, each from the callback of the one before, then lets the
// environment go.
void Addon::close_next() {
  for (auto& [id, channel] : channels) {
    if (channel->closing()) continue;
    return channel->close([](FdChannel*, void* self) { static_cast<Addon*>(self)->close_next(); },
                          this);
  }
  reactor.close(
      [](void* self) { napi_remove_async_cleanup_hook(static_cast<Addon*>(self)->end_); }, this);
}

bool define_functions(napi_env env, napi_value exports, std::initializer_list<Function> functions) {
  for (const Function& function : functions) {
    napi_value value = nullptr;
    if (!ok(env, napi_create_function(env, function.name, NAPI_AUTO_LENGTH, function.call, nullptr,
                                      &value))) {
      return false;
    }
    if (!ok(env, napi_set_named_property(env, exports, function.name, value))) return false;
  }
  return true;
}

}  // namespace aurochs

NAPI_MODULE_INIT() {
  using aurochs::Addon;
  auto addon = std::make_unique<Addon>(env);
  const auto end = [](napi_env, void* data, void*) {
    const std::unique_ptr<Addon> owned(static_cast<Addon*>(data));
  };
  if (!aurochs::ok(env, napi_set_instance_data(env, addon.get(), end, nullptr))) return nullptr;
  Addon* kept = addon.release();
  if (!kept->watch_end(env)) return nullptr;
  const bool defined = aurochs::define_io(env, exports) &&
                       aurochs::define_checksums(env, exports) &&
                       aurochs::define_channels(env, exports) &&
                       aurochs::define_devices(env, exports);
  return defined ? exports : nullptr;
}
