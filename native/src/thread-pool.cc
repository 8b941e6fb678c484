#include "thread-pool.h"

#include <signal.h>
#include <unistd.h>

#include <cstdint>

namespace aurochs {

void ThreadPool::submit(Operation* operation) {
  operation->next = nullptr;
  bool crowded = false;
  {
    std::lock_guard lock(mutex_);
    (queue_tail_ == nullptr ? queue_head_ : queue_tail_->next) = operation;
    queue_tail_ = operation;
    queued_ += 1;
    crowded = queued_ > idle_;
  }
  if (crowded && threads_.size() < kThreadsMax) start_thread();
  if (threads_.empty()) {
    // No thread is there to contend: whatever is queued is this operation alone.
    queue_head_ = queue_tail_ = nullptr;
    queued_ = 0;
    run_blocking(*operation);
    add_done(operation);
    return;
  }
  wake_.notify_one();
}

bool ThreadPool::start_thread() {
  // Signals belong to Node's own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const bool started = pthread_create(&thread, nullptr, &ThreadPool::thread_main, this) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (started) threads_.push_back(thread);
  return started;
}

void* ThreadPool::thread_main(void* self) {
  static_cast<ThreadPool*>(self)->work();
  return nullptr;
}

void ThreadPool::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    while (queue_head_ == nullptr) {
      if (stopping_) return;
      idle_ += 1;
      wake_.wait(lock);
      idle_ -= 1;
    }
    Operation* operation = queue_head_;
    queue_head_ = operation->next;
    if (queue_head_ == nullptr) queue_tail_ = nullptr;
    queued_ -= 1;
    lock.unlock();
    run_blocking(*operation);
    add_done(operation);
    lock.lock();
  }
}

void ThreadPool::add_done(Operation* operation) {
  operation->next = nullptr;
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    first = done_head_ == nullptr;
    (first ? done_head_ : done_tail_->next) = operation;
    done_tail_ = operation;
  }
  if (!first) return;
  const uint64_t one = 1;
  // Cannot fail: the counter would have to pass 2^64 - 2.
  [[maybe_unused]] const ssize_t written = ::write(event_fd_, &one, sizeof one);
}

Operation* ThreadPool::take_done() {
  std::lock_guard lock(mutex_);
  Operation* list = done_head_;
  done_head_ = done_tail_ = nullptr;
  return list;
}

void ThreadPool::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (const pthread_t thread : threads_) pthread_join(thread, nullptr);
  threads_.clear();
}

}  // namespace aurochs
