#include "operation.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace aurochs {
namespace {

// EAGAIN from the kernel means "no memory just now"; more in a row than this is an error of the
// device.
constexpr uint32_t kRetriesMax = 1000;

bool is_transfer(Opcode opcode) { return opcode == Opcode::kRead || opcode == Opcode::kWrite; }

Step finish(Operation& operation, int32_t result) {
  operation.result = result;
  return Step::kFinished;
}

int64_t range_ioctl(const Operation& operation, unsigned long request) {
  uint64_t range[2] = {operation.offset_bytes, operation.length_bytes};
  return ::ioctl(operation.fd, request, range);
}

int64_t call_once(const Operation& operation) {
  const off_t at = static_cast<off_t>(operation.offset_bytes + operation.done_bytes);
  const uint64_t rest = operation.length_bytes - operation.done_bytes;
  const size_t bytes = static_cast<size_t>(std::min(rest, kTransferBytesMax));
  switch (operation.opcode) {
    case Opcode::kRead:
      return ::pread(operation.fd, operation.memory + operation.done_bytes, bytes, at);
    case Opcode::kWrite:
      return ::pwrite(operation.fd, operation.memory + operation.done_bytes, bytes, at);
    case Opcode::kFdatasync:
      return ::fdatasync(operation.fd);
    case Opcode::kPunchHole:
    case Opcode::kZeroRange:
      return ::fallocate(operation.fd, fallocate_mode(operation.opcode), at,
                         static_cast<off_t>(rest));
    case Opcode::kBlockDiscard:
      return range_ioctl(operation, BLKDISCARD);
    case Opcode::kBlockZeroOut:
      return range_ioctl(operation, BLKZEROOUT);
  }
  errno = EINVAL;
  return -1;
}

}  // namespace

Step absorb(Operation& operation, int64_t answer) {
  const bool transfer = is_transfer(operation.opcode);
  if (answer < 0) {
    const bool interrupted = answer == -EINTR || answer == -EAGAIN;
    const bool repeatable = operation.opcode != Opcode::kFdatasync;
    if (interrupted && repeatable && operation.retries++ < kRetriesMax) return Step::kAgain;
    return finish(operation, static_cast<int32_t>(answer));
  }
  if (!transfer) return finish(operation, 0);
  // Nothing moved: the file was cut short behind our back, or the device takes no more.
  if (answer == 0) return finish(operation, operation.opcode == Opcode::kRead ? -ENODATA : -EIO);
  operation.done_bytes += static_cast<uint64_t>(answer);
  if (operation.done_bytes > operation.length_bytes) return finish(operation, -EIO);
  if (operation.done_bytes == operation.length_bytes) return finish(operation, 0);
  operation.retries = 0;
  return Step::kAgain;
}

void run_blocking(Operation& operation) {
  for (;;) {
    const int64_t answer = call_once(operation);
    if (absorb(operation, answer < 0 ? -errno : answer) == Step::kFinished) return;
  }
}

int fallocate_mode(Opcode opcode) {
  return FALLOC_FL_KEEP_SIZE |
         (opcode == Opcode::kPunchHole ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

}  // namespace aurochs
