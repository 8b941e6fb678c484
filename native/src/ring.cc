#include "ring.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

// Kernel headers may be older than the kernel that we run on.
#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

namespace aurochs {
namespace {

int ring_setup(unsigned entries, io_uring_params* params) {
  const long fd = ::syscall(__NR_io_uring_setup, entries, params);
  return fd < 0 ? -errno : static_cast<int>(fd);
}

int ring_enter(int fd, unsigned submit, unsigned complete, unsigned flags) {
  const long count = ::syscall(__NR_io_uring_enter, fd, submit, complete, flags, nullptr, 0);
  return count < 0 ? -errno : static_cast<int>(count);
}

int ring_register(int fd, unsigned opcode, void* argument, unsigned count) {
  return ::syscall(__NR_io_uring_register, fd, opcode, argument, count) < 0 ? -errno : 0;
}

// From best to plainest (ADR-0001); an older kernel answers EINVAL to flags that it does not know.
constexpr unsigned kSetups[] = {
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,  // 6.1
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN,                                // 5.19
    0,
};

}  // namespace

int Ring::open(int event_fd) {
  io_uring_params params;
  int fd = -EINVAL;
  for (const unsigned flags : kSetups) {
    std::memset(&params, 0, sizeof params);
    params.flags = flags;
    fd = ring_setup(kEntries, &params);
    if (fd != -EINVAL) break;
  }
  if (fd < 0) return fd;
  fd_ = UniqueFd(fd);
  setup_flags_ = params.flags;
  // Since 5.5 no completion is lost when the queue is full, since 5.4 one mapping holds both
  // queues.
  constexpr unsigned kNeeded = IORING_FEAT_NODROP | IORING_FEAT_SINGLE_MMAP;
  int status = (params.features & kNeeded) == kNeeded ? map_queues(params) : -ENOSYS;
  if (status == 0) status = ring_register(fd, IORING_REGISTER_EVENTFD, &event_fd, 1);
  if (status != 0) fd_.reset();
  return status;
}

int Ring::map_queues(const io_uring_params& params) {
  const size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
  const size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
  constexpr int kFlags = MAP_SHARED | MAP_POPULATE;
  int status = rings_.map(std::max(sq_bytes, cq_bytes), kFlags, fd_.get(), IORING_OFF_SQ_RING);
  if (status != 0) return status;
  const size_t entries_bytes = params.sq_entries * sizeof(io_uring_sqe);
  status = entries_.map(entries_bytes, kFlags, fd_.get(), IORING_OFF_SQES);
  if (status != 0) return status;
  const auto word = [this](uint32_t offset) {
    return reinterpret_cast<uint32_t*>(rings_.data() + offset);
  };
  sq_head_ = word(params.sq_off.head);
  sq_kernel_tail_ = word(params.sq_off.tail);
  sq_flags_ = word(params.sq_off.flags);
  sq_mask_ = *word(params.sq_off.ring_mask);
  cq_head_ = word(params.cq_off.head);
  cq_tail_ = word(params.cq_off.tail);
  cq_mask_ = *word(params.cq_off.ring_mask);
  cqes_ = reinterpret_cast<io_uring_cqe*>(rings_.data() + params.cq_off.cqes);
  sqes_ = reinterpret_cast<io_uring_sqe*>(entries_.data());
  sq_tail_ = *sq_kernel_tail_;
  // The indirection table is never needed: entry i is always at place i.
  uint32_t* array = word(params.sq_off.array);
  for (uint32_t i = 0; i < params.sq_entries; ++i) array[i] = i;
  return 0;
}

void Ring::queue(const Operation& operation) {
  io_uring_sqe& sqe = sqes_[sq_tail_ & sq_mask_];
  std::memset(&sqe, 0, sizeof sqe);
  sqe.fd = operation.fd;
  sqe.user_data = operation.slot;
  const uint64_t rest = operation.length_bytes - operation.done_bytes;
  switch (operation.opcode) {
    case Opcode::kRead:
    case Opcode::kWrite:
      sqe.opcode = operation.opcode == Opcode::kRead ? IORING_OP_READ : IORING_OP_WRITE;
      sqe.addr = reinterpret_cast<uint64_t>(operation.memory + operation.done_bytes);
      sqe.len = static_cast<uint32_t>(std::min(rest, kTransferBytesMax));
      sqe.off = operation.offset_bytes + operation.done_bytes;
      break;
    case Opcode::kFdatasync:
      sqe.opcode = IORING_OP_FSYNC;
      sqe.fsync_flags = IORING_FSYNC_DATASYNC;
      break;
    case Opcode::kPunchHole:
    case Opcode::kZeroRange:
      sqe.opcode = IORING_OP_FALLOCATE;
      sqe.len = static_cast<uint32_t>(fallocate_mode(operation.opcode));
      sqe.off = operation.offset_bytes;
      sqe.addr = operation.length_bytes;
      break;
    case Opcode::kBlockDiscard:
    case Opcode::kBlockZeroOut:
      // Never reached: these go to the thread pool. The kernel answers EINVAL.
      sqe.opcode = IORING_OP_LAST;
      break;
  }
  ++sq_tail_;
}

int Ring::submit() {
  Counter(*sq_kernel_tail_).store(sq_tail_, std::memory_order_release);
  while (const unsigned count = unsent()) {
    const int taken = ring_enter(fd_.get(), count, 0, 0);
    if (taken < 0 && taken != -EINTR) return taken;
    // The kernel takes nothing without saying why only when it is out of memory for requests.
    if (taken == 0) return -EAGAIN;
  }
  return 0;
}

int Ring::fetch(bool wait) {
  const bool deferred = (setup_flags_ & IORING_SETUP_DEFER_TASKRUN) != 0;
  const uint32_t flags = Counter(*sq_flags_).load(std::memory_order_acquire);
  const bool overflown = (flags & IORING_SQ_CQ_OVERFLOW) != 0;
  if (!deferred && !overflown && !wait) return 0;
  for (;;) {
    const int status = ring_enter(fd_.get(), 0, wait ? 1 : 0, IORING_ENTER_GETEVENTS);
    if (status != -EINTR) return status < 0 ? status : 0;
  }
}

}  // namespace aurochs
