// Bindings of device facts, locks and FUSE mounts.
#include "addon.h"
#include "device.h"
#include "napi-call.h"

namespace aurochs {
namespace {

constexpr size_t kPathMax = 4096;
constexpr size_t kOptionsMax = 512;

// inspectFd(fd): {block, sizeBytes, sectorSize, memoryAlign}, or a negative errno.
napi_value inspect_fd(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  const int fd = arguments.integer();
  if (!arguments.valid()) return nullptr;
  DeviceFacts facts;
  const int status = inspect(fd, &facts);
  if (status != 0) return to_js(env, status);
  napi_value block = nullptr;
  if (!ok(env, napi_get_boolean(env, facts.block, &block))) return nullptr;
  return make_object(env, {{"block", block},
                           {"sizeBytes", to_js(env, static_cast<double>(facts.size_bytes))},
                           {"sectorSize", to_js(env, facts.sector_bytes)},
                           {"memoryAlign", to_js(env, facts.memory_align)}});
}

napi_value lock_fd(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  const int fd = arguments.integer();
  return arguments.valid() ? to_js(env, lock_exclusive(fd)) : nullptr;
}

// mountFuse(dir, source, options): descriptor or a negative errno.
napi_value mount_fuse(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 3);
  char dir[kPathMax];
  char source[kPathMax];
  char options[kOptionsMax];
  arguments.text(dir, sizeof dir);
  arguments.text(source, sizeof source);
  arguments.text(options, sizeof options);
  return arguments.valid() ? to_js(env, fuse_mount(dir, source, options)) : nullptr;
}

// unmountFuse(dir, lazy): 0 or a negative errno.
napi_value unmount_fuse(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 2);
  char dir[kPathMax];
  arguments.text(dir, sizeof dir);
  const bool lazy = arguments.flag();
  return arguments.valid() ? to_js(env, fuse_unmount(dir, lazy)) : nullptr;
}

}  // namespace

bool define_devices(napi_env env, napi_value exports) {
  return define_functions(env, exports,
                          {{"inspectFd", inspect_fd},
                           {"lockFd", lock_fd},
                           {"mountFuse", mount_fuse},
                           {"unmountFuse", unmount_fuse}});
}

}  // namespace aurochs
