#include "reactor.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "napi-call.h"

namespace aurochs {
namespace {

constexpr size_t kSharedBytes =
    kSlots * (sizeof(SlotDescriptor) + sizeof(uint32_t) + sizeof(Completion));

// What the kernel cannot express as a file offset: not a whole number of bytes below 2^53.
bool is_offset(double value) { return value >= 0 && value <= 9007199254740991.0; }

}  // namespace

Reactor::~Reactor() { drain(); }

int Reactor::start() {
  if (started_) return 0;
  int status = shared_.map(kSharedBytes, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (status != 0) return status;
  slots_ = reinterpret_cast<SlotDescriptor*>(shared_.data());
  completions_ = reinterpret_cast<Completion*>(slots_ + kSlots);
  submissions_ = reinterpret_cast<uint32_t*>(completions_ + kSlots);
  operations_ = std::make_unique<Operation[]>(kSlots);
  event_fd_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event_fd_.valid()) return -errno;
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env_, &loop) != napi_ok) return -EINVAL;
  poll_ = std::make_unique<uv_poll_t>();
  status = uv_poll_init(loop, poll_.get(), event_fd_.get());
  if (status != 0) {
    poll_.reset();
    return status;
  }
  poll_->data = this;
  status = uv_poll_start(poll_.get(), UV_READABLE, &Reactor::on_readable);
  uv_unref(reinterpret_cast<uv_handle_t*>(poll_.get()));
  pool_ = std::make_unique<ThreadPool>(event_fd_.get());
  started_ = true;
  return status;
}

bool Reactor::set_callback(napi_value callback) {
  napi_value name = to_js(env_, "aurochs:io");
  return name != nullptr && ok(env_, napi_create_reference(env_, callback, 1, &callback_)) &&
         ok(env_, napi_async_init(env_, nullptr, name, &context_));
}

int Reactor::open_ring() {
  if (ring_status_ == 1) ring_status_ = ring_.open(event_fd_.get());
  return ring_status_;
}

void Reactor::submit(uint32_t count) {
  if (draining_) return;
  for (uint32_t i = 0; i < count; ++i) accept(submissions_[i]);
  if (ring_.is_open()) flush_ring();
  // Refused without reaching the kernel; told in the next turn like all others.
  if (completed_ > 0) wake();
  if (in_flight_ + completed_ > 0) uv_ref(reinterpret_cast<uv_handle_t*>(poll_.get()));
}

// Copies the descriptor before anything else: JavaScript cannot change an operation once it is
// submitted.
void Reactor::accept(uint32_t slot) {
  if (slot >= kSlots) return;
  const SlotDescriptor given = slots_[slot];
  Operation& operation = operations_[slot];
  operation = Operation{};
  operation.slot = slot;
  operation.opcode = static_cast<Opcode>(given.opcode & 0xff);
  operation.fd = given.fd;
  in_flight_ += 1;
  const bool known = operation.opcode >= Opcode::kRead && operation.opcode <= Opcode::kBlockZeroOut;
  if (!known || !is_offset(given.offset_bytes) || !is_offset(given.length_bytes)) {
    return complete(operation, -EINVAL);
  }
  operation.offset_bytes = static_cast<uint64_t>(given.offset_bytes);
  operation.length_bytes = static_cast<uint64_t>(given.length_bytes);
  if (operation.opcode == Opcode::kRead || operation.opcode == Opcode::kWrite) {
    Chunk* chunk = chunks_->find(given.chunk_id, given.chunk_offset, operation.length_bytes);
    if (chunk == nullptr) return complete(operation, -EFAULT);
    ChunkTable::pin(chunk);
    operation.chunk = chunk;
    operation.memory = chunk->region.data() + given.chunk_offset;
  }
  const bool ioctl = operation.opcode == Opcode::kBlockDiscard ||
                     operation.opcode == Opcode::kBlockZeroOut;
  if (ioctl || (given.opcode & kOnThreads) != 0 || !ring_.is_open()) {
    pool_->submit(&operation);
  } else {
    ring_.queue(operation);
    in_ring_ += 1;
  }
}

void Reactor::complete(Operation& operation, int32_t result) {
  if (operation.chunk != nullptr) ChunkTable::unpin(operation.chunk);
  operation.chunk = nullptr;
  completions_[completed_++] = Completion{operation.slot, result};
  in_flight_ -= 1;
}

void Reactor::flush_ring() {
  const int status = ring_.unsent() > 0 ? ring_.submit() : 0;
  if (status == 0) return;
  // Once more in the next turn of the loop.
  if (status == -EAGAIN || status == -EBUSY) return wake();
  ring_.withdraw_unsent([&](uint32_t slot) {
    in_ring_ -= 1;
    complete(operations_[slot], status);
  });
}

// Everything that has completed goes to completions(); short transfers are sent on.
void Reactor::collect() {
  for (Operation* done = pool_->take_done(); done != nullptr;) {
    Operation* next = done->next;
    complete(*done, done->result);
    done = next;
  }
  if (!ring_.is_open()) return;
  // Refused (out of memory): what has completed stays with the kernel and is not signalled again.
  if (ring_.fetch(false) != 0 && in_ring_ > 0) wake();
  ring_.reap([&](uint32_t slot, int32_t answer) {
    if (slot >= kSlots) return;
    Operation& operation = operations_[slot];
    if (absorb(operation, answer) == Step::kAgain) return ring_.queue(operation);
    in_ring_ -= 1;
    complete(operation, operation.result);
  });
  flush_ring();
}

void Reactor::on_readable(uv_poll_t* handle, int, int) {
  auto* self = static_cast<Reactor*>(handle->data);
  uint64_t count = 0;
  // Before collecting: what completes from here on signals again.
  [[maybe_unused]] const ssize_t bytes = ::read(self->event_fd_.get(), &count, sizeof count);
  self->collect();
  if (self->in_flight_ == 0) uv_unref(reinterpret_cast<uv_handle_t*>(handle));
  if (self->completed_ > 0) self->deliver();
}

void Reactor::deliver() {
  const uint32_t count = completed_;
  completed_ = 0;
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env_, &scope) != napi_ok) return;
  call_back(env_, context_, callback_, count);
  napi_close_handle_scope(env_, scope);
}

void Reactor::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_fd_.get(), &one, sizeof one);
}

void Reactor::drain() {
  if (!started_ || draining_) return;
  draining_ = true;
  while (in_ring_ > 0) {
    completed_ = 0;
    flush_ring();
    if (in_ring_ > 0 && ring_.fetch(true) != 0 && ring_.unsent() == 0) break;
    collect();
  }
  pool_->stop();
  completed_ = 0;
  collect();
  completed_ = 0;
}

void Reactor::close(void (*closed)(void*), void* context) {
  if (poll_ == nullptr) return closed(context);
  closed_ = closed;
  closed_context_ = context;
  uv_close(reinterpret_cast<uv_handle_t*>(poll_.get()), [](uv_handle_t* handle) {
    auto* self = static_cast<Reactor*>(handle->data);
    if (self->context_ != nullptr) napi_async_destroy(self->env_, self->context_);
    if (self->callback_ != nullptr) napi_delete_reference(self->env_, self->callback_);
    self->closed_(self->closed_context_);
  });
}

}  // namespace aurochs
