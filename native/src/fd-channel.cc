#include "fd-channel.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

namespace aurochs {

int FdChannel::start(napi_value callback) {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env_, &loop) != napi_ok) return -EINVAL;
  const int status = uv_poll_init(loop, &poll_, fd_.get());  // makes it non-blocking too
  if (status != 0) {
    static_cast<void>(fd_.release());  // still the caller's
    return status;
  }
  poll_.data = this;
  napi_value name = to_js(env_, "aurochs:channel");
  const bool bound = name != nullptr &&
                     ok(env_, napi_create_reference(env_, callback, 1, &callback_)) &&
                     ok(env_, napi_async_init(env_, nullptr, name, &context_));
  return bound ? 0 : -ENOMEM;
}

int64_t FdChannel::read_now(const Bytes& into) {
  for (;;) {
    const ssize_t count = ::read(fd_.get(), into.data, into.size);
    if (count >= 0) return count;
    if (errno != EINTR) return -errno;
  }
}

int64_t FdChannel::read(napi_value buffer, const Bytes& into, bool wait) {
  if (closing_) return -EBADF;
  if (pending_ != nullptr) return -EBUSY;
  const int64_t count = wait ? -EAGAIN : read_now(into);
  if (count != -EAGAIN) return count;
  if (!ok(env_, napi_create_reference(env_, buffer, 1, &pending_))) return -ENOMEM;
  into_ = into;
  const int status = uv_poll_start(&poll_, UV_READABLE, &FdChannel::on_readable);
  if (status == 0) return -EINPROGRESS;
  forget_pending();
  return status;
}

void FdChannel::on_readable(uv_poll_t* handle, int, int) {
  auto* self = static_cast<FdChannel*>(handle->data);
  // An error condition of the descriptor shows as the error of this read.
  const int64_t result = self->read_now(self->into_);
  if (result == -EAGAIN) return;
  uv_poll_stop(handle);
  self->deliver(result);
}

void FdChannel::forget_pending() {
  if (pending_ != nullptr) napi_delete_reference(env_, pending_);
  pending_ = nullptr;
  into_ = Bytes{};
}

void FdChannel::deliver(int64_t result) {
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env_, &scope) != napi_ok) return;
  forget_pending();
  call_back(env_, context_, callback_, static_cast<double>(result));
  napi_close_handle_scope(env_, scope);
}

int64_t FdChannel::write(const struct iovec* parts, int count) {
  if (closing_) return -EBADF;
  for (;;) {
    const ssize_t written = ::writev(fd_.get(), parts, count);
    if (written >= 0) return written;
    if (errno != EINTR) return -errno;
  }
}

void FdChannel::close(void (*closed)(FdChannel*, void*), void* context) {
  if (closing_) return;
  closing_ = true;
  closed_ = closed;
  closed_context_ = context;
  forget_pending();
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), [](uv_handle_t* handle) {
    auto* self = static_cast<FdChannel*>(handle->data);
    if (self->context_ != nullptr) napi_async_destroy(self->env_, self->context_);
    if (self->callback_ != nullptr) napi_delete_reference(self->env_, self->callback_);
    self->closed_(self, self->closed_context_);
  });
  // After uv_close, which takes it off the loop's poll set; the number may be another file's from
  // here on.
  fd_.reset();
}

}  // namespace aurochs
