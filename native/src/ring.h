// An io_uring instance over raw system calls. Used by one thread, the one that opened it.
//
// Invariants: at most kEntries requests are between take() and their completion, so the submission
// queue always has room and the completion queue (twice as large) never overflows.
#pragma once

#include <linux/io_uring.h>

#include <atomic>
#include <cstdint>

#include "operation.h"
#include "unique-fd.h"

namespace aurochs {

class Ring {
 public:
  static constexpr unsigned kEntries = kSlots;

  // 0, or a negative errno (EPERM, ENOSYS: forbidden or unknown here). `event_fd` is signalled per
  // completion.
  int open(int event_fd);
  bool is_open() const { return fd_.valid(); }
  // IORING_SETUP_* flags that this kernel granted.
  unsigned setup_flags() const { return setup_flags_; }

  // Queues the rest of the operation; it reaches the kernel with the next submit().
  void queue(const Operation& operation);
  unsigned unsent() const { return sq_tail_ - sq_head().load(std::memory_order_acquire); }
  // 0 when the kernel has taken all; else a negative errno with unsent() > 0 left queued.
  int submit();
  // Takes back what submit() could not send: calls take(slot) for each.
  template <typename Take>
  void withdraw_unsent(Take take);

  // Lets the kernel post what has completed; with `wait`, at least one. 0 or a negative errno.
  int fetch(bool wait);
  // Calls take(slot, answer) for each posted completion.
  template <typename Take>
  void reap(Take take);

 private:
  using Counter = std::atomic_ref<uint32_t>;

  int map_queues(const io_uring_params& params);
  Counter sq_head() const { return Counter(*sq_head_); }

  UniqueFd fd_;
  MmapRegion rings_;
  MmapRegion entries_;
  unsigned setup_flags_ = 0;
  uint32_t* sq_head_ = nullptr;
  uint32_t* sq_kernel_tail_ = nullptr;
  uint32_t* sq_flags_ = nullptr;
  uint32_t* cq_head_ = nullptr;
  uint32_t* cq_tail_ = nullptr;
  uint32_t sq_mask_ = 0;
  uint32_t cq_mask_ = 0;
  uint32_t sq_tail_ = 0;
  io_uring_sqe* sqes_ = nullptr;
  io_uring_cqe* cqes_ = nullptr;
};

template <typename Take>
void Ring::withdraw_unsent(Take take) {
  const uint32_t head = sq_head().load(std::memory_order_acquire);
  for (uint32_t at = head; at != sq_tail_; ++at) {
    take(static_cast<uint32_t>(sqes_[at & sq_mask_].user_data));
  }
  sq_tail_ = head;
  Counter(*sq_kernel_tail_).store(sq_tail_, std::memory_order_release);
}

template <typename Take>
void Ring::reap(Take take) {
  uint32_t head = *cq_head_;  // only we write it
  const uint32_t tail = Counter(*cq_tail_).load(std::memory_order_acquire);
  while (head != tail) {
    const io_uring_cqe& cqe = cqes_[head & cq_mask_];
    take(static_cast<uint32_t>(cqe.user_data), cqe.res);
    ++head;
  }
  Counter(*cq_head_).store(head, std::memory_order_release);
}

}  // namespace aurochs
