// Carries operations from JavaScript to the kernel and their results back: one per Node
// environment.
//
// JavaScript fills slots of a shared table, calls submit(n) once per turn, and gets one callback
// per batch of completions. No object is made per operation.
//
// Invariants: an operation is in flight from submit() until its Completion is written; its chunk
// stays pinned just as long. The event loop is kept alive while something is in flight and only
// then.
#pragma once

#include <node_api.h>
#include <uv.h>

#include <memory>

#include "memory.h"
#include "operation.h"
#include "ring.h"
#include "thread-pool.h"
#include "unique-fd.h"

namespace aurochs {

class Reactor {
 public:
  Reactor(napi_env env, ChunkTable* chunks) : env_(env), chunks_(chunks) {}
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;
  ~Reactor();

  // Binds to the event loop. 0, or a negative errno with nothing started.
  int start();
  bool started() const { return started_; }
  // Called with the number of entries in completions(); kept until the environment ends.
  bool set_callback(napi_value callback);
  // Opens the ring once; later calls repeat the first answer. 0 or a negative errno.
  int open_ring();
  unsigned ring_flags() const { return ring_.setup_flags(); }

  SlotDescriptor* slots() const { return slots_; }
  uint32_t* submissions() const { return submissions_; }
  Completion* completions() const { return completions_; }
  unsigned char* shared_memory() const { return shared_.data(); }
  size_t shared_bytes() const { return shared_.size(); }

  // Takes the first `count` slot numbers of submissions().
  void submit(uint32_t count);
  uint32_t in_flight() const { return in_flight_; }

  // Waits for everything in flight without calling JavaScript; nothing can be submitted afterwards.
  void drain();
  // After drain: closes the handle; then `closed(context)` runs on the event loop.
  void close(void (*closed)(void*), void* context);

 private:
  static void on_readable(uv_poll_t* handle, int status, int events);
  void accept(uint32_t slot);
  void complete(Operation& operation, int32_t result);
  void flush_ring();
  void collect();
  void deliver();
  void wake();

  napi_env env_;
  ChunkTable* chunks_;
  MmapRegion shared_;
  SlotDescriptor* slots_ = nullptr;
  uint32_t* submissions_ = nullptr;
  Completion* completions_ = nullptr;
  std::unique_ptr<Operation[]> operations_;
  UniqueFd event_fd_;
  Ring ring_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<uv_poll_t> poll_;
  napi_ref callback_ = nullptr;
  napi_async_context context_ = nullptr;
  int ring_status_ = 1;  // 1: not tried yet
  uint32_t completed_ = 0;
  uint32_t in_flight_ = 0;
  uint32_t in_ring_ = 0;
  bool started_ = false;
  bool draining_ = false;
  void (*closed_)(void*) = nullptr;
  void* closed_context_ = nullptr;
};

}  // namespace aurochs
