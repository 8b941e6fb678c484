// Bindings of FdChannel: channels are numbers in JavaScript, so a stale one is an error, not a
// dangling pointer.
#include <sys/uio.h>

#include <cerrno>

#include "addon.h"
#include "napi-call.h"

namespace aurochs {
namespace {

constexpr uint32_t kPartsMax = 64;

FdChannel* find(Addon* addon, double id) {
  const auto found = addon->channels.find(static_cast<uint32_t>(id));
  return found == addon->channels.end() ? nullptr : found->second.get();
}

// openChannel(fd, callback): a positive number, or a negative errno with the descriptor still the
// caller's.
napi_value open_channel(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 2);
  const int fd = arguments.integer();
  napi_value callback = arguments.value();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  auto channel = std::make_unique<FdChannel>(env, fd);
  const int status = channel->start(callback);
  if (status != 0) return to_js(env, status);
  const uint32_t id = addon->next_channel++;
  addon->channels.emplace(id, std::move(channel));
  return to_js(env, id);
}

// readChannel(id, buffer, wait): byte count, -EINPROGRESS if the callback will tell, or a negative
// errno.
napi_value read_channel(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 3);
  const double id = arguments.number();
  napi_value buffer = arguments.value();
  const bool wait = arguments.flag();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  Bytes into;
  void* data = nullptr;
  if (!ok(env, napi_get_buffer_info(env, buffer, &data, &into.size))) return nullptr;
  into.data = static_cast<unsigned char*>(data);
  FdChannel* channel = find(addon, id);
  const int64_t result = channel == nullptr ? -EBADF : channel->read(buffer, into, wait);
  return to_js(env, static_cast<double>(result));
}

// writeChannel(id, buffers): byte count or a negative errno.
napi_value write_channel(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 2);
  const double id = arguments.number();
  napi_value buffers = arguments.value();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  uint32_t count = 0;
  if (!ok(env, napi_get_array_length(env, buffers, &count))) return nullptr;
  if (count > kPartsMax) return throw_range(env, "writeChannel: too many parts");
  struct iovec parts[kPartsMax];
  for (uint32_t i = 0; i < count; ++i) {
    napi_value part = nullptr;
    if (!ok(env, napi_get_element(env, buffers, i, &part))) return nullptr;
    if (!ok(env, napi_get_buffer_info(env, part, &parts[i].iov_base, &parts[i].iov_len))) {
      return nullptr;
    }
  }
  FdChannel* channel = find(addon, id);
  const int64_t result =
      channel == nullptr ? -EBADF : channel->write(parts, static_cast<int>(count));
  return to_js(env, static_cast<double>(result));
}

// closeChannel(id): undefined; a pending read gets no callback.
napi_value close_channel(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  const double id = arguments.number();
  Addon* addon = Addon::of(env);
  if (!arguments.valid() || addon == nullptr) return nullptr;
  FdChannel* channel = find(addon, id);
  if (channel == nullptr) return nullptr;
  channel->close(
      [](FdChannel* closed, void* context) {
        std::erase_if(static_cast<Addon*>(context)->channels,
                      [closed](const auto& entry) { return entry.second.get() == closed; });
      },
      addon);
  return nullptr;
}

}  // namespace

bool define_channels(napi_env env, napi_value exports) {
  return define_functions(env, exports,
                          {{"openChannel", open_channel},
                           {"readChannel", read_channel},
                           {"writeChannel", write_channel},
                           {"closeChannel", close_channel}});
}

}  // namespace aurochs
