// A message descriptor (/dev/fuse, a socket) on the event loop: one read at a time, synchronous
// writev.
//
// Invariant: the destination of a pending read is kept alive by a reference to its Buffer until the
// answer.
#pragma once

#include <node_api.h>
#include <uv.h>

#include "napi-call.h"
#include "unique-fd.h"

namespace aurochs {

class FdChannel {
 public:
  FdChannel(napi_env env, int fd) : env_(env), fd_(fd) {}
  FdChannel(const FdChannel&) = delete;
  FdChannel& operator=(const FdChannel&) = delete;

  // `callback` is called with the result of each read that was pending: a byte count or a negative
  // errno.
  int start(napi_value callback);
  // The byte count, or a negative errno; -EINPROGRESS: pending, the callback will tell.
  // `wait` goes through the event loop even when a message is there already.
  int64_t read(napi_value buffer, const Bytes& into, bool wait);
  // One writev of all parts: the byte count or a negative errno.
  int64_t write(const struct iovec* parts, int count);
  // Stops and closes the descriptor; a pending read is forgotten. `closed(context)` runs on the
  // event loop.
  void close(void (*closed)(FdChannel*, void*), void* context);
  bool closing() const { return closing_; }

 private:
  static void on_readable(uv_poll_t* handle, int status, int events);
  int64_t read_now(const Bytes& into);
  void forget_pending();
  void deliver(int64_t result);

  napi_env env_;
  UniqueFd fd_;
  uv_poll_t poll_ = {};
  napi_ref callback_ = nullptr;
  napi_ref pending_ = nullptr;
  napi_async_context context_ = nullptr;
  Bytes into_;
  bool closing_ = false;
  void (*closed_)(FdChannel*, void*) = nullptr;
  void* closed_context_ = nullptr;
};

}  // namespace aurochs
