// A small pool of threads for what the ring cannot or may not do. No Node-API on its threads.
//
// Invariants: an operation is in exactly one of: the queue, a running thread, the done list. The
// queue is bounded by the number of slots, so it needs no limit of its own.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <vector>

#include "operation.h"

namespace aurochs {

class ThreadPool {
 public:
  static constexpr unsigned kThreadsMax = 8;

  // `event_fd` is borrowed; it is signalled when the done list becomes non-empty.
  explicit ThreadPool(int event_fd) : event_fd_(event_fd) {}
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() { stop(); }

  // The operation stays the caller's memory; it must live until take_done() returned it.
  // Where not even one thread can be had it runs here and now, rather than be dropped.
  void submit(Operation* operation);
  // The finished operations as a list through `next`, oldest first, or null.
  Operation* take_done();
  // Waits until everything queued is done and the threads have ended.
  void stop();

 private:
  static void* thread_main(void* self);
  void work();
  bool start_thread();
  void add_done(Operation* operation);

  const int event_fd_;
  std::mutex mutex_;
  std::condition_variable wake_;
  Operation* queue_head_ = nullptr;
  Operation* queue_tail_ = nullptr;
  Operation* done_head_ = nullptr;
  Operation* done_tail_ = nullptr;
  unsigned queued_ = 0;
  unsigned idle_ = 0;
  bool stopping_ = false;
  std::vector<pthread_t> threads_;  // touched by the owner's thread only
};

}  // namespace aurochs
